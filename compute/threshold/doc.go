// Package threshold shares BFV keys (compute/he) among parties: any t of n decrypt
// together, fewer learn nothing, and no one ever has the secret key.
//
// Its nouns:
//
//   - Key: what is public of a collective key: its parties and their points, the
//     threshold, the Policy, the public key and the sharing's commitment.
//   - KeyShare: one party's part of it, secret. A Store keeps it sealed on disk, with
//     the record of what it has been used for.
//   - DecryptionShare: what a party releases of one ciphertext, for one set of t
//     parties and one session, signed.
//
// # How it is used
//
// Every party opens a compute.Session under an agreed name and calls the same
// function; the result is the same everywhere but for the secret part:
//
//	s, err := compute.Open(ctx, net, compute.Config{Name: job, Roster: roster, Self: i, Key: signer})
//	k, err := threshold.Generate(ctx, s, store, parameters, threshold.Policy{Threshold: 3, Quota: 1})
//	keys, err := k.EvaluationKeys(ctx, s, elements...) // relinearisation and rotations
//	…                                                  // anyone: k.PublicKey().Encrypt, evaluate
//	d, err := k.Decrypt(ctx, s, store, ct)             // a session of t parties, or more to cross-check
//	ct, err := k.Switch(ctx, s, store, ct, recipient)  // only the recipient will read it
//	k, err := threshold.Reshare(ctx, s, store, k, plan) // other parties, same public key
//
// Decryption also works without a session, by files: KeyShare.DecryptionShare at t
// parties, Key.Combine at whoever has their shares.
//
// # Protocols
//
// MHE: C. Mouchet, J. Troncoso-Pastoriza, J.-P. Bossuat, J.-P. Hubaux, "Multiparty
// Homomorphic Encryption from Ring-Learning-with-Errors", PoPETs 2021(4) (ePrint
// 2020/304). TMHE: C. Mouchet, E. Bertrand, J.-P. Hubaux, "An Efficient Threshold
// Access-Structure for RLWE-Based Multiparty Homomorphic Encryption", Journal of
// Cryptology 36 (2023) (ePrint 2022/780).
//
//   - Secret: s = Σ s_i with s_i uniform ternary (MHE, section 3: ideal secret key).
//     Every dealer shares its s_i by a polynomial of degree t-1 over R_QP at the
//     integers 1 … n, whose differences are units (TMHE, section 3, Shamir over R_q).
//     A party's share is the sum over dealers.
//   - Common reference string: commit and reveal by all parties (compute.Session.Coin),
//     bound to session and purpose.
//   - Public key: b = Σ (e_i - a·s_i) (MHE, protocol EncKeyGen).
//   - Relinearisation key, two rounds (MHE, protocol RelinKeyGen), and Galois keys, one
//     round (MHE, section 4, RotKeyGen), of the additive shares λ_j·S_j of any set of t
//     or more parties (TMHE, section 4).
//   - Decryption: h_j = c1·(λ_j·S_j) + e_j + z_j. The Lagrange coefficient comes before
//     the flooding error e_j: after it, λ_j would multiply the error (TMHE, section 4.3).
//     The z_j sum up to zero: see Decryption.
//   - Switching to a public key (p0, p1): h_j = (c1·λ_j·S_j + u_j·p0 + e_j + z_j,
//     u_j·p1 + e'_j) (MHE, protocol PubKeySwitch).
//   - Resharing: t holders deal their λ_j·S_j again, to a new set with a new threshold
//     (Y. Desmedt and S. Jajodia, "Redistributing Secret Shares", 1997; A. Herzberg et
//     al., "Proactive Secret Sharing", CRYPTO '95).
//
// # How dealings are checked
//
// A dealer shares f and an error e with polynomials F, E of uniform coefficients, and
// two blinding polynomials G_1, G_2. It broadcasts hashes of every party's share and
// of H(x) = E(x) - a·F(x), so that H(0) is its part of the public key, then sends the
// shares, opens H, and after a coin c_1, c_2 ∈ R_QP that nobody could foresee, opens
// D_l = G_l + c_l·F. A party j checks its hash, E_j - a·F_j = H(j), and G_lj + c_l·F_j =
// D_l(j), all exactly (the linear check of M. Ben-Or, S. Goldwasser and A. Wigderson's
// and T. Rabin and M. Ben-Or's verifiable sharing, 1988 and 1989, over many secrets at
// once). If it fails, the party complains, the dealer opens that share to all, and is
// excluded and named if it does not satisfy all.
//
// What that proves: the shares of all honest parties lie on one polynomial of degree
// t-1 that belongs to the dealer's public H(0), but with probability q^-2 for the
// smallest prime q: 2^-72 at N = 4096, 2^-86 at 8192. It hides f perfectly but for
// H(0), which is a sample of ring learning with errors. It does not prove that f and e
// are small. Therefore t parties decrypt a joint encryption of zero before a key is
// accepted: if the sum of the secrets were much too large, or shares and public key did
// not belong together, it would not be small (ErrProof; it names no one). The same is
// done for relinearisation and Galois keys, on a ciphertext that a coin chooses once they
// are there, and after resharing before old shares are deleted. A dealer's part is fixed, by hash, before it sees any other; so it can make
// the key fail, but not choose it. Two things are left to it. It can have itself
// excluded once it has seen the others' parts: k dishonest dealers choose among 2^k
// keys. And the trial is flooded too: it finds a secret or an error that is about 2^40
// times its bound, and not one that is less. Such a key decrypts less than it claims,
// and takes as much off the flooding: smudging over the worst noise holds if all
// dealers that were not excluded drew their secrets from the right distribution.
//
// # Decryption
//
// A share alone must not tell more than the sum. To holders outside the set, λ_j·S_j is
// u/w·s and something that they know, with u and w small; h_j without z_j would tell
// them u/w·v, v the noise, and a flood below Q/w does not hide v modulo w: a few such
// residues are linear equations for the secret. So the holders of a sharing have secrets
// in pairs, from which they expand a sharing z_j of zero for every release (R. Cramer, I.
// Damgård and Y. Ishai, TCC 2005, section 3), and shares of fewer than all honest parties
// of a set are uniform.
//
// A decryption share has error uniform in ±2^b. Its b is not derived from what a
// ciphertext says of its noise, which is its maker's word: 2^b is the largest flooding
// with which t shares still decrypt, and a ciphertext is only accepted if it says that
// its noise is at most 2^(b-σ), σ ≥ 40 the policy's Smudging. If it lies, its noise is
// flooded with less than 2^σ, but with as much as the modulus permits in any case.
// Parameters that leave no room for fresh ciphertexts are refused (ErrNoRoom): N = 4096
// with t = 65537. Three of five decrypt two products, one on the other, at N = 8192 and
// six at 16384; with a 33-bit t one and four.
//
// The statistical distance of one release from what the plaintext alone gives is at most
// N·2^-(σ+1) for each plaintext prime: that times Quota bounds what repeated decryption
// of one ciphertext reveals. Every release is counted on disk before it is made, by the
// part of the ciphertext that it depends on (c1), so that neither a restart nor another
// name for the same ciphertext resets it. It does not count related ciphertexts: what
// may be decrypted at all is the caller's policy, for any decryption of ciphertexts of
// an adversary's choice reveals the key bit by bit, as with every scheme of this kind.
//
// What is proved of a decryption share: who released it, for which ciphertext, session
// and set. That it was computed rightly is not. With t parties a wrong share shows as
// noise, or, if it was made with skill, as a wrong plaintext. In a session of more
// parties every t of them decrypt and the results are compared: t+2e parties give the
// right result and name the liars if there are at most e, and one can't be framed for
// another but where the results fit several explanations, which are all given.
//
// # What it promises
//
//   - t-1 parties' shares are independent of the secret, and what others release tells
//     them no more than the sum.
//   - A party that is missing, equivocates, deals wrongly or contradicts what it has
//     committed to is named (compute.PartyError).
//   - Messages and shares of other sessions, sharings or ciphertexts are refused.
//   - Shares on disk are sealed; replaced ones are overwritten and removed, after all
//     new ones are on disk.
//   - No branch or memory access depends on secrets; no math/big on them.
//
// It assumes a network that delivers (compute.Net), for complaints make a share public,
// and fewer than t dishonest parties among those that hold shares; with n ≥ 2t-1, as 3
// of 5, the honest ones can decrypt without the others. It does not promise that a
// computation ends: one party can always prevent that, and is named.
package threshold
