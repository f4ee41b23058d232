package threshold

import (
	"fmt"
	"math"

	"fednode/compute/he"
	"fednode/compute/he/ring"
)

// Limits of policies.
const (
	MinSmudging = 40
	MaxSmudging = 128
	MaxQuota    = 1 << 16
	MaxParties  = 128
)

// A Policy is what the parties of a key agree on when they make it.
type Policy struct {
	Threshold int // parties that decrypt together: 2 … n
	// Smudging is how many times, as a power of two, the flooding error of a
	// decryption share exceeds the worst noise accepted. MinSmudging if 0.
	Smudging int
	// Quota is how many shares of one ciphertext a party releases, ever: at least 1.
	// A decryption takes one; cross-checking one for each set a party is in. They are
	// counted before, so that a party that stops in between has used one up.
	Quota int
}

// normal fills defaults in and refuses what is not safe.
func (p Policy) normal(parties int) (Policy, error) {
	if p.Smudging == 0 {
		p.Smudging = MinSmudging
	}
	switch {
	case parties < 2 || parties > MaxParties:
		return p, fmt.Errorf("%w: %d parties; take 2 to %d", ErrPolicy, parties, MaxParties)
	case p.Threshold < 2 || p.Threshold > parties:
		return p, fmt.Errorf("%w: a threshold of %d among %d parties; take 2 to %d", ErrPolicy, p.Threshold, parties, parties)
	case p.Smudging < MinSmudging:
		return p, fmt.Errorf("%w: 2^%d times the worst noise; at least 2^%d is needed", ErrUnsmudged, p.Smudging, MinSmudging)
	case p.Smudging > MaxSmudging:
		return p, fmt.Errorf("%w: smudging of 2^%d; at most 2^%d", ErrPolicy, p.Smudging, MaxSmudging)
	case p.Quota < 1:
		return p, fmt.Errorf("%w: a quota of %d; say how often a ciphertext may be decrypted, 1 to %d", ErrUnlimited, p.Quota, MaxQuota)
	case p.Quota > MaxQuota:
		return p, fmt.Errorf("%w: a quota of %d is none; take 1 to %d", ErrUnlimited, p.Quota, MaxQuota)
	}
	return p, nil
}

// A flood is the error of decryption shares at a level: uniform in ±2^bits, for
// ciphertexts with noise of at most worst. worst + shares·2^bits + reserve is no more
// than what decrypts.
type flood struct {
	bits  int
	worst he.Noise
}

// flooding returns the widest flood that leaves reserve for other noise.
func (p Policy) flooding(params *he.Parameters, level int, reserve float64) (flood, error) {
	limit := float64(params.Capacity(level)) - reserve
	share := float64(p.Threshold) + math.Ldexp(1, -p.Smudging)
	f := flood{bits: -1}
	if limit > 0 {
		f.bits = int(math.Floor(math.Log2(limit / share)))
		if math.Ldexp(share, f.bits) > limit { // the logarithm was rounded
			f.bits--
		}
		f.worst = he.Noise(math.Ldexp(1, f.bits-p.Smudging))
	}
	if f.bits < p.Smudging {
		return f, fmt.Errorf("%w: level %d of %s takes %d shares of error below 2^%d; smudging 2^%d times the noise needs more; take larger parameters",
			ErrNoRoom, level, params, p.Threshold, max(f.bits, 0), p.Smudging)
	}
	return f, nil
}

// Capacity returns the largest noise of ciphertexts of a level that a key of this
// policy decrypts, for plans: ErrNoRoom if there is none.
func (p Policy) Capacity(params *he.Parameters, level, parties int) (he.Noise, error) {
	p, err := p.normal(parties)
	if err != nil {
		return 0, err
	}
	f, err := p.flooding(params, level, switchReserve(params, p.Threshold, he.OwnBounds))
	return f.worst, err
}

// Bounds returns the bounds of collective keys of so many dealers.
func Bounds(dealers int) he.KeyBounds {
	return he.KeyBounds{Secret: float64(dealers), Error: float64(dealers) * ring.ErrorBound}
}

// room refuses parameters under which not even a fresh ciphertext can be decrypted.
func (p Policy) room(params *he.Parameters, dealers int) error {
	worst, err := p.Capacity(params, params.MaxLevel(), max(dealers, p.Threshold))
	if err != nil {
		return err
	}
	if fresh := params.NoisePublicKey(Bounds(dealers)); fresh > worst {
		return fmt.Errorf("%w: fresh ciphertexts of %s under a key of %d parties have noise of 2^%.1f; with smudging of 2^%d only 2^%.1f can be decrypted; take larger parameters",
			ErrNoRoom, params, dealers, fresh.Bits(), p.Smudging, worst.Bits())
	}
	return nil
}

// switchReserve is the noise that switching to a public key within bounds adds to
// the flood: Σ u_j·e + e'_j·s over the shares.
func switchReserve(params *he.Parameters, shares int, to he.KeyBounds) float64 {
	n := float64(params.N())
	return float64(shares) * n * (to.Error + ring.ErrorBound*to.Secret)
}
