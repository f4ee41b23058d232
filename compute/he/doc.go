// Package he computes on encrypted integers: the BFV scheme in full RNS form,
// over packed vectors of integers modulo a plaintext modulus.
//
// Its nouns:
//
//   - Parameters: a lattice (degree N, ciphertext modulus Q, special prime P) from
//     a short list, and one or more plaintext primes t.
//   - Keys: SecretKey, PublicKey, and EvaluationKeys (relinearisation, rotations),
//     which belong to the lattice and not to t.
//   - Ciphertext: for each plaintext prime, polynomials (c0, c1[, c2]) modulo Q
//     with c0 + c1·s + c2·s² = (Q/t)·m + v, and a bound on the noise |v|.
//
// # Shapes and levels
//
// A Ciphertext of level l has l rows of N residues for each polynomial, stored as
// values (after the NTT). Fresh ones have the level of the parameters: 2 at
// N = 4096, 4 at 8192, 8 at 16384; ModSwitch takes one away. Two hybrids count:
// Slots holds 2 rows of N/2 integers, and Rotate turns both rows by a number of
// places, SwapRows exchanges them. With plaintext primes t1, t2, … the integers
// are modulo t1·t2·…, by the Chinese remainder theorem.
//
// # What it promises
//
//   - Parameters stay within the table of the HomomorphicEncryption.org standard
//     for 128-bit classical security and ternary secrets, special prime included.
//     Everything else is refused by name.
//   - The noise bound of every ciphertext is a worst-case bound, proved step by
//     step in noise.go for any plaintext and any key of the declared size. An
//     operation whose result might not decrypt correctly returns ErrNoise and
//     computes nothing. Decryption measures what noise there is and refuses to
//     return numbers when it is too much: wrong keys and damaged ciphertexts end
//     there too.
//   - Files carry their version and the hash of their parameters and are checked
//     against accidental damage. They are not authenticated: whoever carries
//     them signs.
//   - No branch and no memory access depends on keys, errors or plaintexts, but
//     in decoding to and encoding from Go integers that leave their range.
//
// It does not promise more than IND-CPA: an evaluator who may submit ciphertexts
// of its choice and see decryptions can learn the key (as with every scheme of
// this kind), for (0, Q/t) is a ciphertext of the key itself. Decrypt only what your
// own agreement made of columns that their makers can be trusted to have encrypted.
// Nor does it hide from the holder of a key how a ciphertext came about: the noise
// depends on the operands. Threshold decryption floods it.
//
// # Sources
//
// Scheme: Z. Brakerski, CRYPTO 2012 (ePrint 2012/078); J. Fan and F. Vercauteren,
// ePrint 2012/144, sections 3 and 4. RNS arithmetic: S. Halevi, Y. Polyakov and V.
// Shoup, CT-RSA 2019 (ePrint 2018/117), sections 2 to 4 (HPS), in the variant of
// A. Kim, Y. Polyakov and V. Zucca, ASIACRYPT 2021 (ePrint 2021/204), section 3
// (one operand scaled to a second modulus; encoding by rounding Q·m/t).
// Key switching: C. Gentry, S. Halevi and N. Smart, CRYPTO 2012 (ePrint 2012/099),
// section 3.1 and K. Han and D. Ki, CT-RSA 2020 (ePrint 2019/688), section 3, with
// one special prime and one digit for each prime of Q. Hoisting: S. Halevi and V.
// Shoup, CRYPTO 2018 (ePrint 2018/244), section 5. Batching: N. Smart and F.
// Vercauteren, ePrint 2011/133. Security: M. Albrecht et al., "Homomorphic
// Encryption Standard", 2018, table 1.
package he
