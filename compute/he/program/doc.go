// Package program plans and runs computations on encrypted columns of integers: additions, subtractions,
// multiplications, constants and sums over columns, written in the syntax of expr.
//
// Its nouns:
//
//   - Program: named expressions over columns, such as total = sum(price * quantity).
//   - Plan: a program, the bounds of its columns, the number of rows at most and who holds the key; and what follows
//     from them: the lattice, the plaintext primes, depth, noise and the range of each result. A plan is public and is
//     named by its hash, which every table carries.
//   - Table: encrypted columns, or the encrypted results of a program, in a file.
//
// # What it promises
//
//   - Nothing is encrypted before it is known that the results will decrypt, and to what was asked for. The plan
//     follows the range of every result, signed, by interval arithmetic from the bounds of columns, and the noise of
//     every step by the worst-case bounds of package he. It takes the smallest set of parameters that holds both, and
//     refuses the program with the reason where none does.
//   - A column that leaves its bounds is refused when it is encrypted: a result cannot wrap around.
//   - A plan that was read is planned anew and compared: one that was altered is refused. Tables of another plan or
//     under another key are refused by name.
//
// It does not promise that whoever evaluates has computed the program, or that a column was encrypted and not made to show
// the key: there are no proofs of either. Evaluation has no
// randomness, so that whoever has the tables of columns can run it too and compare (Same): holders of a key should,
// before they decrypt for others. A key may be in several hands (Proposal, package threshold); then any t of them decrypt.
//
// # Shapes
//
// A column of R rows is ⌈R/N⌉ ciphertexts of N slots, zeros after the last row. Operations act row by row. sum adds the
// ciphertexts of a column and then turns and adds log2(N) times (he.Evaluator.InnerSum), after which every slot has the
// total; so that totals and columns may be multiplied and added. A chain of products is a balanced tree. A product takes
// one level of depth; products with constants and sums take none, but noise.
//
// # Sources
//
// Noise: compute/he/noise.go and the papers there. Ranges: interval arithmetic, R. Moore, "Interval Analysis", 1966. Sums
// of slots by turning and adding: S. Halevi and V. Shoup, "Algorithms in HElib", CRYPTO 2014 (ePrint 2014/106), on total sums.
package program
