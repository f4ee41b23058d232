// Package ring computes in the negacyclic rings Z_q[X]/(X^N+1) that lattice
// cryptography rests on, with q a product of word-sized primes.
//
// Its nouns:
//
//   - Modulus: one prime q ≤ 60 bits, q ≡ 1 mod 2N where an NTT is wanted, with
//     the constants of its reductions.
//   - Ring: R_Q for Q the product of a list of primes (a residue number system,
//     RNS), N = 1024 … 32768. A Poly is one row of N residues for each prime.
//   - Source: a keystream expanded from a seed, and the samplers that draw from
//     it: uniform, ternary, centred binomial.
//
// What it promises:
//
//   - Every function that touches residues is constant time in their values: no
//     branch and no index depends on one. The one exception is Uniform, whose
//     output is public by definition (masks, common reference strings).
//   - Results are the same bytes on every platform, with and without assembly. On
//     amd64 with AVX512-IFMA, found at run time, rows of primes of at most 50 bits
//     are computed eight residues at a time; the build tag purego leaves that out.
//   - Rows are fully reduced, in [0, q), wherever a function's doc says nothing
//     else.
//   - The same seed, label and ring give the same polynomial for good: seeds
//     stand in for polynomials in files.
//
// Sources: D. Harvey, "Faster arithmetic for number-theoretic transforms", JSC
// 60 (2014), sections 3 and 4 (lazy butterflies, Shoup's multiplication); P.
// Longa and M. Naehrig, "Speeding up the Number Theoretic Transform", CANS 2016
// (ePrint 2016/504), algorithms 1 and 2 (negacyclic transforms with merged ψ);
// F. Boemer et al., "Intel HEXL", WAHC 2021 (ePrint 2021/420), section 3
// (AVX512-IFMA butterflies); P. Barrett, CRYPTO '86; E. Alkim, L. Ducas, T.
// Pöppelmann and P. Schwabe, "NewHope", USENIX Security 2016, section 4.1
// (centred binomial errors).
package ring
