package node

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"fednode/hsm"
	"fednode/node/config"
	"fednode/transport"
	"fednode/transport/member"
)

// keyGrace is how long after a new message key is in force the old one still signs, so that every member has learnt.
const keyGrace = time.Minute

// messageKeys are an organisation's message keys: the one that signs, one that is to, and those from before.
type messageKeys struct {
	mu   sync.Mutex
	held []hsm.Key
	sign int // index of the one that signs
}

// keyID names a message key in the member record: the first 8 bytes of its public key's bytes, in hex.
func keyID(k crypto.Signer) string {
	pub := k.Public().(ed25519.PublicKey)
	return "msg-" + hex.EncodeToString(pub[:8])
}

func (m *messageKeys) add(k hsm.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = append(m.held, k)
}

// signing returns the key that signs, with its name.
func (m *messageKeys) signing() (string, hsm.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.held[m.sign]
	return keyID(k), k
}

// find returns the key of that name, if it is held.
func (m *messageKeys) find(id string) (hsm.Key, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.held, func(k hsm.Key) bool { return keyID(k) == id })
	if i < 0 {
		return nil, false
	}
	return m.held[i], true
}

// use makes the first of the listed keys that is held the one that signs. It reports whether that is another than
// before.
func (m *messageKeys) use(listed []member.MessageKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range listed {
		if i := slices.IndexFunc(m.held, func(k hsm.Key) bool { return keyID(k) == l.KeyID }); i >= 0 {
			changed := m.sign != i
			m.sign = i
			return changed
		}
	}
	return false
}

func (m *messageKeys) close() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.held {
		err = errors.Join(err, k.Close())
	}
	return err
}

// openMessageKeys opens all message keys of the data directory.
func (s *Site) openMessageKeys() error {
	files, err := filepath.Glob(filepath.Join(s.Dir, keyDir, "message*.key"))
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, f := range files {
		k, err := s.keyring.Open("file:" + keyDir + "/" + filepath.Base(f))
		if err != nil {
			return err
		}
		s.messages.add(k)
	}
	if len(files) == 0 {
		return fmt.Errorf("%s holds no message key: %s is missing; restore it from a backup", s.Dir, strings.TrimPrefix(messageKey, "file:"))
	}
	return nil
}

// own returns this organisation's record in force, if it is a member.
func (s *Site) own() (member.Record, bool) {
	if s.members == nil {
		return member.Record{}, false
	}
	m, ok := s.members.Current().Get(s.Org())
	if !ok {
		return member.Record{}, false
	}
	return m.Record().Record, true
}

// useListedKey has the newest key sign that the record in force lists.
func (s *Site) useListedKey() {
	if r, ok := s.own(); ok {
		s.messages.use(r.Keys.Message)
	}
}

// renewed returns a record to follow the one in force: see [Node.Renew].
func (s *Site) renewed(endpoints []config.Address, rotate, drop bool) (member.SignedRecord, error) {
	now, ok := s.own()
	if !ok {
		return member.SignedRecord{}, errors.New("this organisation is not a member yet; its record is made when it joins")
	}
	next := now
	next.Sequence, next.Endpoints, next.IssuedAt = now.Sequence+1, nil, transport.NewTime(s.now()).String()
	for _, a := range endpoints {
		next.Endpoints = append(next.Endpoints, string(a))
	}
	next.Keys.Message = slices.Clone(now.Keys.Message)
	if rotate {
		k, err := s.nextMessageKey(next.Sequence)
		if err != nil {
			return member.SignedRecord{}, err
		}
		next.Keys.Message = slices.Insert(next.Keys.Message[:1], 0, member.MessageKey{KeyID: keyID(k), Alg: "Ed25519", Public: k.Public().(ed25519.PublicKey)})
	}
	if drop {
		next.Keys.Message = next.Keys.Message[:1]
	}
	return s.signRecord(next)
}

// nextMessageKey returns the message key of the record to come, made if it is not there from an earlier try.
func (s *Site) nextMessageKey(sequence int64) (hsm.Key, error) {
	uri := fmt.Sprintf("file:%s/message-%06d.key", keyDir, sequence)
	open := s.keyring.Open
	if !hasKey(s.Dir, uri) {
		open = func(uri string) (hsm.Key, error) { return s.keyring.Generate(uri, hsm.Ed25519) }
	}
	k, err := open(uri)
	if err != nil {
		return nil, err
	}
	if held, ok := s.messages.find(keyID(k)); ok {
		return held, k.Close()
	}
	s.messages.add(k)
	return k, nil
}

// signRecord signs a record with the identity key, and every key in it proves possession.
func (s *Site) signRecord(r member.Record) (member.SignedRecord, error) {
	software := []crypto.Signer{s.log, s.cosigner}
	for _, k := range r.Keys.Message {
		held, ok := s.messages.find(k.KeyID)
		if !ok {
			return member.SignedRecord{}, fmt.Errorf("message key %s is not in %s", k.KeyID, filepath.Join(s.Dir, keyDir))
		}
		software = append(software, held)
	}
	above := s.issuers.Load()
	return member.SignRecord(r, []*x509.Certificate{above.identity, above.issuing}, s.identity, software...)
}

func fingerprint(c *x509.Certificate) string { return fingerprintDER(c.Raw) }

// fingerprintDER is the SHA-256 of a certificate, in lower-case hex.
func fingerprintDER(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
