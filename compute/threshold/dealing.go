package threshold

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"fednode/compute"
	"fednode/compute/he"
	"fednode/compute/he/ring"
)

const (
	// challenges is the number of blinding polynomials and of linear checks.
	challenges = 2
	saltSize   = 32
)

// A dealing is the verifiable sharing of pairs (f, e) of elements of a ring by some
// parties of a session to some, with b = e - a·f public. See the package doc.
type dealing struct {
	session   *compute.Session
	ring      *ring.Ring
	mask      ring.Poly // a
	threshold int
	dealers   []bool   // by place in the session
	points    []uint64 // by place; 0 for a party that gets no share
	// expected is what a dealer's b must be, or nil where it may choose.
	expected func(dealer int) ring.Poly
	// strict ends the dealing with the first dealer that deals wrongly; otherwise
	// it is excluded.
	strict bool
}

// A dealt is the sum of what the dealers that were not excluded have dealt.
type dealt struct {
	f, e     ring.Poly     // this party's shares, nil without a point
	pairs    pairs         // and its secrets with other holders, once the sharing is tried
	public   []ring.Poly   // Σ H: coefficients of e - a·f over points, b first
	excluded map[int]error // dealers by place, and why
}

func (d *dealt) wipe() {
	wipe(d.f, d.e)
	d.pairs.wipe()
}

// A deal is a dealer's secrets.
type deal struct {
	f, e  []ring.Poly
	blind [challenges][]ring.Poly
	open  []byte              // salt and the coefficients of H
	to    map[int]sharePacket // by place
}

// A sharePacket is what a party gets of a dealer: salt, F, E, G_1, G_2 at its point.
type sharePacket []byte

func (d *deal) wipe() {
	if d == nil {
		return
	}
	wipe(d.f...)
	wipe(d.e...)
	for _, g := range d.blind {
		wipe(g...)
	}
	for _, b := range d.to {
		clear(b)
	}
}

func (v *dealing) packetSize() int { return saltSize + (2+challenges)*he.PolySize(v.ring) }
func (v *dealing) openSize() int   { return saltSize + v.threshold*he.PolySize(v.ring) }
func (v *dealing) answerSize() int { return challenges * v.threshold * he.PolySize(v.ring) }

// newDeal takes f and e over.
func (v *dealing) newDeal(f, e ring.Poly) *deal {
	d := &deal{f: sharingPolynomial(v.ring, f, v.threshold), e: sharingPolynomial(v.ring, e, v.threshold), to: make(map[int]sharePacket)}
	for l := range d.blind {
		d.blind[l] = sharingPolynomial(v.ring, uniformPoly(v.ring), v.threshold)
	}
	d.open = make([]byte, saltSize, v.openSize())
	rand.Read(d.open) // never fails (Go 1.24)
	h := v.ring.NewPoly()
	for k := range d.f {
		v.ring.Mul(h, v.mask, d.f[k])
		v.ring.Sub(h, d.e[k], h)
		d.open = he.AppendPoly(d.open, v.ring, h)
	}
	for place, x := range v.points {
		if x == 0 {
			continue
		}
		packet := make([]byte, saltSize, v.packetSize())
		rand.Read(packet)
		for _, c := range [][]ring.Poly{d.f, d.e, d.blind[0], d.blind[1]} {
			y := evaluate(v.ring, c, x)
			packet = he.AppendPoly(packet, v.ring, y)
			y.Wipe()
		}
		d.to[place] = packet
	}
	return d
}

// response returns D_l = G_l + c_l·F for all l.
func (v *dealing) response(d *deal, c [challenges]ring.Poly) []byte {
	out := make([]byte, 0, v.answerSize())
	y := v.ring.NewPoly()
	for l := range c {
		for k := range d.f {
			v.ring.Mul(y, c[l], d.f[k])
			v.ring.Add(y, y, d.blind[l][k])
			out = he.AppendPoly(out, v.ring, y)
		}
	}
	return out
}

// digest is what a dealer commits to a packet or an opening by.
func (v *dealing) digest(what string, dealer, holder int, b []byte) [32]byte {
	id := v.session.ID()
	h := sha256.New()
	fmt.Fprintf(h, "fednode/threshold/dealing/v1\n%x\n%s\n%d\n%d\n", id, what, dealer, holder)
	h.Write(b)
	return [32]byte(h.Sum(nil))
}

const (
	ofOpening = "opening"
	ofPacket  = "packet"
	ofCoin    = "coin"
	noHolder  = -1
)

// A view is what this party has of one dealer.
type view struct {
	committed []byte      // the digests, opening first, then packets by place
	packet    sharePacket // its own
	h         []ring.Poly
	d         [challenges][]ring.Poly
}

// run deals f and e, if this party is a dealer (it takes them over and wipes them),
// and returns the sum over all dealers.
func (v *dealing) run(ctx context.Context, f, e ring.Poly) (*dealt, error) {
	var own *deal
	if v.dealers[v.session.Self()] {
		own = v.newDeal(f, e)
		defer own.wipe()
	}
	views := make([]*view, len(v.dealers))
	defer func() {
		for _, w := range views {
			if w != nil {
				clear(w.packet)
			}
		}
	}()
	excluded := make(map[int]error)
	coin := make([]byte, 2*saltSize)
	rand.Read(coin)
	coins, err := v.commit(ctx, own, coin, views)
	if err == nil {
		err = v.distribute(ctx, own, views)
	}
	if err != nil {
		return nil, err
	}
	challenge, err := v.open(ctx, own, coin, coins, views, excluded)
	if err == nil {
		err = v.respond(ctx, own, challenge, views, excluded)
	}
	if err == nil {
		err = v.complain(ctx, own, challenge, views, excluded)
	}
	if err != nil {
		return nil, err
	}
	return v.sum(views, excluded)
}

// commit broadcasts the hashes of this party's randomness, opening and packets, and
// returns those of the randomness.
func (v *dealing) commit(ctx context.Context, own *deal, coin []byte, views []*view) ([][]byte, error) {
	const round = "dealing: commitments"
	self := v.session.Self()
	digest := v.digest(ofCoin, self, noHolder, coin)
	payload := digest[:]
	if own != nil {
		digest := v.digest(ofOpening, self, noHolder, own.open)
		payload = append(payload, digest[:]...)
		for place := range v.points {
			digest = [32]byte{}
			if packet := own.to[place]; packet != nil {
				digest = v.digest(ofPacket, self, place, packet)
			}
			payload = append(payload, digest[:]...)
		}
	}
	full := sha256.Size * (2 + len(v.points))
	all, err := v.session.Broadcast(ctx, round, payload, full)
	if err != nil {
		return nil, err
	}
	coins := make([][]byte, len(all))
	for i, b := range all {
		want := sha256.Size
		if v.dealers[i] {
			want = full
		}
		if len(b) != want {
			return nil, v.session.Blame(i, round, fmt.Errorf("%w: %d bytes of commitments, not %d", compute.ErrMisbehaved, len(b), want))
		}
		coins[i] = b[:sha256.Size]
		if v.dealers[i] {
			views[i] = &view{committed: b[sha256.Size:]}
		}
	}
	return coins, nil
}

// distribute sends the packets.
func (v *dealing) distribute(ctx context.Context, own *deal, views []*view) error {
	out := make([][]byte, len(v.points))
	if own != nil {
		for place, packet := range own.to {
			out[place] = packet
		}
	}
	in, err := v.session.Exchange(ctx, "dealing: shares", out, v.packetSize())
	if err != nil {
		return err
	}
	for i, w := range views {
		if w != nil {
			w.packet = in[i]
		}
	}
	return nil
}

// exclude notes that a dealer has dealt wrongly. What it rests on must be known to
// all parties alike.
func (v *dealing) exclude(excluded map[int]error, dealer int, round, format string, args ...any) error {
	err := fmt.Errorf("%w: %s", ErrDealing, fmt.Sprintf(format, args...))
	if v.strict {
		return v.session.Blame(dealer, round, err)
	}
	if excluded[dealer] == nil {
		excluded[dealer] = &compute.PartyError{Party: v.session.Roster()[dealer].Name, Round: round, Err: err}
	}
	return nil
}

// open reveals H and the randomness, and returns the challenge.
func (v *dealing) open(ctx context.Context, own *deal, coin []byte, coins [][]byte, views []*view, excluded map[int]error) (c [challenges]ring.Poly, err error) {
	const round = "dealing: openings"
	payload := bytes.Clone(coin)
	if own != nil {
		payload = append(payload, own.open...)
	}
	all, err := v.session.Broadcast(ctx, round, payload, len(coin)+v.openSize())
	if err != nil {
		return c, err
	}
	id := v.session.ID()
	seed := sha256.New()
	fmt.Fprintf(seed, "fednode/threshold/challenge/v1\n%x\n", id)
	for i, b := range all {
		if len(b) < len(coin) {
			return c, v.session.Blame(i, round, fmt.Errorf("%w: no randomness", compute.ErrMisbehaved))
		}
		if digest := v.digest(ofCoin, i, noHolder, b[:len(coin)]); !bytes.Equal(digest[:], coins[i]) {
			return c, v.session.Blame(i, round, fmt.Errorf("%w: its randomness is not what it committed to", compute.ErrMisbehaved))
		}
		seed.Write(b[:len(coin)])
		if w := views[i]; w != nil {
			if what := v.parseOpening(i, w, b[len(coin):]); what != "" {
				if err := v.exclude(excluded, i, round, "%s", what); err != nil {
					return c, err
				}
			}
		}
	}
	s := ring.Seed(seed.Sum(nil))
	for l := range c {
		c[l] = v.ring.NewPoly()
		v.ring.Uniform(c[l], s, fmt.Sprintf("threshold/challenge/%d", l))
	}
	return c, nil
}

func (v *dealing) parseOpening(dealer int, w *view, b []byte) string {
	if digest := v.digest(ofOpening, dealer, noHolder, b); len(b) != v.openSize() || !bytes.Equal(digest[:], w.committed[:sha256.Size]) {
		return "its commitment opens to something else"
	}
	h, ok := v.polys(b[saltSize:], v.threshold)
	if !ok {
		return "its polynomial is malformed"
	}
	if v.expected != nil && !v.ring.Equal(h[0], v.expected(dealer)) {
		return "it deals something else than its share"
	}
	w.h = h
	return ""
}

// polys reads polynomials that fill b.
func (v *dealing) polys(b []byte, count int) ([]ring.Poly, bool) {
	out := make([]ring.Poly, count)
	var err error
	for k := range out {
		if out[k], b, err = he.TakePoly(b, v.ring); err != nil {
			return nil, false
		}
	}
	return out, len(b) == 0
}

// respond answers the challenge.
func (v *dealing) respond(ctx context.Context, own *deal, c [challenges]ring.Poly, views []*view, excluded map[int]error) error {
	const round = "dealing: responses"
	var payload []byte
	if own != nil {
		payload = v.response(own, c)
	}
	all, err := v.session.Broadcast(ctx, round, payload, v.answerSize())
	if err != nil {
		return err
	}
	for i, w := range views {
		if w == nil {
			continue
		}
		polys, ok := v.polys(all[i], challenges*v.threshold)
		if !ok {
			if err := v.exclude(excluded, i, round, "its response is malformed"); err != nil {
				return err
			}
			continue
		}
		for l := range w.d {
			w.d[l] = polys[l*v.threshold : (l+1)*v.threshold]
		}
	}
	return nil
}

// verify checks the packet of a dealer for a holder against what is public, and
// returns its F and E.
func (v *dealing) verify(dealer, holder int, w *view, packet sharePacket, c [challenges]ring.Poly) (f, e ring.Poly, ok bool) {
	digest := v.digest(ofPacket, dealer, holder, packet)
	at := sha256.Size * (1 + holder)
	if len(packet) != v.packetSize() || !bytes.Equal(digest[:], w.committed[at:at+sha256.Size]) {
		return nil, nil, false
	}
	polys, ok := v.polys(packet[saltSize:], 2+challenges)
	if !ok {
		return nil, nil, false
	}
	f, e = polys[0], polys[1]
	x, y := v.points[holder], v.ring.NewPoly()
	v.ring.Mul(y, v.mask, f)
	v.ring.Sub(y, e, y)
	good := v.ring.Equal(y, evaluate(v.ring, w.h, x))
	for l := range c {
		v.ring.Mul(y, c[l], f)
		v.ring.Add(y, y, polys[2+l])
		good = v.ring.Equal(y, evaluate(v.ring, w.d[l], x)) && good
	}
	wipe(y)
	wipe(polys[2:]...)
	return f, e, good
}

// complain says which dealers' packets are not good, and lets these show them to all.
func (v *dealing) complain(ctx context.Context, own *deal, c [challenges]ring.Poly, views []*view, excluded map[int]error) error {
	const round, answers = "dealing: complaints", "dealing: answers"
	self, n := v.session.Self(), len(v.points)
	marks := make([]byte, n)
	for i, w := range views {
		if w == nil || excluded[i] != nil || v.points[self] == 0 {
			continue
		}
		f, e, ok := v.verify(i, self, w, w.packet, c)
		if !ok {
			marks[i] = 1
		}
		wipe(f, e)
	}
	all, err := v.session.Broadcast(ctx, round, marks, n)
	if err != nil {
		return err
	}
	accusers := make([][]int, n) // by dealer
	most := 0
	for j, b := range all {
		for i := range n {
			if len(b) != n || b[i] > 1 || b[i] == 1 && (v.points[j] == 0 || views[i] == nil) {
				return v.session.Blame(j, round, fmt.Errorf("%w: malformed complaints", compute.ErrMisbehaved))
			}
			if b[i] == 1 && excluded[i] == nil {
				accusers[i] = append(accusers[i], j)
				most = max(most, len(accusers[i]))
			}
		}
	}
	if most == 0 {
		return nil
	}
	var payload []byte
	for _, j := range accusers[self] {
		payload = append(payload, own.to[j]...)
	}
	if all, err = v.session.Broadcast(ctx, answers, payload, most*v.packetSize()); err != nil {
		return err
	}
	for i, by := range accusers {
		if err := v.judge(i, by, all[i], c, views[i], excluded, answers); err != nil {
			return err
		}
	}
	return nil
}

// judge decides on complaints about a dealer by the packets that it shows.
func (v *dealing) judge(dealer int, accusers []int, shown []byte, c [challenges]ring.Poly, w *view, excluded map[int]error, round string) error {
	size := v.packetSize()
	for k, j := range accusers {
		name := v.session.Roster()[j].Name
		if len(shown) != len(accusers)*size {
			return v.exclude(excluded, dealer, round, "it does not show the share of %q, who complains", name)
		}
		packet := sharePacket(shown[k*size : (k+1)*size])
		f, e, ok := v.verify(dealer, j, w, packet, c)
		wipe(f, e)
		if !ok {
			return v.exclude(excluded, dealer, round, "the share of %q does not fit what it published", name)
		}
		if j == v.session.Self() {
			w.packet = bytes.Clone(packet)
		}
	}
	return nil
}

// sum adds up what is left.
func (v *dealing) sum(views []*view, excluded map[int]error) (*dealt, error) {
	out := &dealt{excluded: excluded}
	holds := v.points[v.session.Self()] != 0
	if holds {
		out.f, out.e = v.ring.NewPoly(), v.ring.NewPoly()
	}
	for range v.threshold {
		out.public = append(out.public, v.ring.NewPoly())
	}
	for i, w := range views {
		if w == nil || excluded[i] != nil {
			continue
		}
		for k := range out.public {
			v.ring.Add(out.public[k], out.public[k], w.h[k])
		}
		if !holds {
			continue
		}
		polys, ok := v.polys(w.packet[saltSize:], 2+challenges)
		if !ok {
			return nil, v.session.Blame(i, "dealing", fmt.Errorf("%w: a share that was checked is gone", ErrDealing))
		}
		v.ring.Add(out.f, out.f, polys[0])
		v.ring.Add(out.e, out.e, polys[1])
		wipe(polys...)
	}
	return out, nil
}
