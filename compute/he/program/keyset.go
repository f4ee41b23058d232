package program

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"fednode/compute/he"
	"fednode/compute/threshold"
	"fednode/hsm"
	"fednode/hsm/durable"
)

// A KeySet is a directory with what a plan's computations take:
//
//	plan.json        the plan
//	public.key       encrypts
//	evaluation.keys  evaluates
//	collective.key   of a key in several hands: what is public of it (package threshold)
//	members.json     and who they are
//	keys.json        the hashes of these, which belong together
//	secret.sealed    of a key in one hand: the secret key, sealed to the keyring beside it
//	keyring          (package hsm)
//
// All but the last two is public and goes to whoever encrypts or evaluates.
type KeySet struct {
	Plan       *Plan
	Public     *he.PublicKey
	ID         KeyID
	Collective *threshold.Key // nil for a key in one hand
	Members    []Member
	dir        string
	hashes     keyHashes
}

// The files of a key set.
const (
	planName       = "plan.json"
	publicName     = "public.key"
	evaluationName = "evaluation.keys"
	collectiveName = "collective.key"
	membersName    = "members.json"
	hashesName     = "keys.json"
	secretName     = "secret.sealed"
	keyringName    = "keyring"
)

// Limits of files: 128 evaluation keys of the largest set have less.
const (
	maxKey        = 64 << 20
	maxEvaluation = 2 << 30
)

type keyHashes struct {
	Version    int    `json:"version"`
	Plan       string `json:"plan"`
	Public     string `json:"public_key"`
	Evaluation string `json:"evaluation_keys"`
	Collective string `json:"collective_key,omitempty"`
	Members    string `json:"members,omitempty"`
}

func hashOf(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) }

// secretContext binds a sealed key to what it is the key of.
func secretContext(id KeyID) []byte { return append([]byte("fednode/he/secret/v1\n"), id[:]...) }

// CreateKeys draws keys for a plan and writes them to dir, which must not exist or be empty; whole or not at all.
func CreateKeys(dir string, pl *Plan, pass hsm.Passphrase) (*KeySet, error) {
	sk := he.NewSecretKey(pl.p)
	defer sk.Wipe()
	pk, err := sk.PublicKey()
	if err != nil {
		return nil, err
	}
	evaluation, err := sk.EvaluationKeys(pl.Elements()...)
	if err != nil {
		return nil, err
	}
	return writeKeys(dir, pl, pk, evaluation, nil, func(tmp string, id KeyID) error { return sealSecret(tmp, sk, id, pass) })
}

// writeKeys writes a key set to dir, which must not exist or be empty; whole or not at all. What is secret is written by
// secret, to the directory that it is given.
func writeKeys(dir string, pl *Plan, pk *he.PublicKey, evaluation *he.EvaluationKeys, more map[string][]byte, secret func(dir string, id KeyID) error) (*KeySet, error) {
	if err := vacant(dir); err != nil {
		return nil, err
	}
	parent := filepath.Dir(filepath.Clean(dir))
	tmp, err := os.MkdirTemp(parent, ".keys-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	files := map[string][]byte{planName: pl.Marshal(), publicName: pk.Marshal(), evaluationName: evaluation.Marshal()}
	h := keyHashes{Version: 1, Plan: hashOf(files[planName]), Public: hashOf(files[publicName]), Evaluation: hashOf(files[evaluationName])}
	maps.Copy(files, more)
	if len(more) > 0 {
		h.Collective, h.Members = hashOf(more[collectiveName]), hashOf(more[membersName])
	}
	if files[hashesName], err = json.MarshalIndent(h, "", "  "); err != nil {
		return nil, err
	}
	for name, b := range files {
		if err := durable.Create(filepath.Join(tmp, name), b, 0o644|durable.Masked); err != nil {
			return nil, err
		}
	}
	if secret != nil {
		if err := secret(tmp, IDOf(files[publicName])); err != nil {
			return nil, err
		}
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, err
	}
	if err := durable.SyncDir(parent); err != nil {
		return nil, err
	}
	return OpenKeys(dir)
}

// vacant refuses a directory in which there is something.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty: keys are not overwritten; name another directory", dir)
	}
	return nil
}

func sealSecret(dir string, sk *he.SecretKey, id KeyID, pass hsm.Passphrase) error {
	ring, err := hsm.CreateKeyring(filepath.Join(dir, keyringName), pass)
	if err != nil {
		return err
	}
	defer ring.Close()
	plain, err := sk.MarshalSecret()
	if err != nil {
		return err
	}
	defer clear(plain)
	sealed, err := ring.Sealer().Seal(plain, secretContext(id))
	if err != nil {
		return err
	}
	return durable.Create(filepath.Join(dir, secretName), sealed, 0o600)
}

// OpenKeys opens the public part of a key set.
func OpenKeys(dir string) (*KeySet, error) {
	k := &KeySet{dir: dir}
	b, err := k.read(hashesName, "", maxPlan)
	if err != nil {
		if _, statErr := os.Stat(dir); statErr == nil && errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is no directory of keys: it has no %s", dir, hashesName)
		}
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&k.hashes); err != nil || k.hashes.Version != 1 {
		return nil, fmt.Errorf("%s: not of version 1, which this build reads", filepath.Join(dir, hashesName))
	}
	if b, err = k.read(planName, k.hashes.Plan, maxPlan); err != nil {
		return nil, err
	}
	if k.Plan, err = ParsePlan(b); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, planName), err)
	}
	if b, err = k.read(publicName, k.hashes.Public, maxKey); err != nil {
		return nil, err
	}
	k.ID = IDOf(b)
	if k.Public, err = k.Plan.p.ParsePublicKey(b); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, publicName), err)
	}
	if b := k.Plan.holders.bounds(); k.Public.Bounds().Secret > b.Secret || k.Public.Bounds().Error > b.Error {
		return nil, fmt.Errorf("%s: the key is not of %s, as the plan has it", filepath.Join(dir, publicName), count(k.Plan.holders.Parties, "organisation"))
	}
	if k.Plan.holders.Parties > 1 {
		return k, k.openCollective(b)
	}
	return k, nil
}

// openCollective reads what there is besides of a key in several hands, and holds it against the rest.
func (k *KeySet) openCollective(public []byte) error {
	b, err := k.read(membersName, k.hashes.Members, maxPlan)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&k.Members); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(k.dir, membersName), err)
	}
	if err := checkMembers(k.Members, k.Plan.holders); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(k.dir, membersName), err)
	}
	if b, err = k.read(collectiveName, k.hashes.Collective, maxKey); err != nil {
		return err
	}
	if k.Collective, err = threshold.ParseKey(b); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(k.dir, collectiveName), err)
	}
	if k.Collective.Parameters().ID() != k.Plan.p.ID() || k.Collective.Parties().Hash() != RosterOf(k.Members).Hash() {
		return fmt.Errorf("%s: of other parameters or members", filepath.Join(k.dir, collectiveName))
	}
	pk, err := k.Collective.PublicKey()
	if err != nil {
		return err
	}
	if !bytes.Equal(pk.Marshal(), public) {
		return fmt.Errorf("%s: its public key is not %s", filepath.Join(k.dir, collectiveName), publicName)
	}
	return nil
}

// read returns a file of at most limit bytes, with the given hash if there is one.
func (k *KeySet) read(name, hash string, limit int64) ([]byte, error) {
	path := filepath.Join(k.dir, name)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(b)) > limit:
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	case hash != "" && hashOf(b) != hash:
		return nil, fmt.Errorf("%s is damaged or of other keys: its hash is not that in %s", path, hashesName)
	}
	return b, nil
}

// Evaluation reads the evaluation keys.
func (k *KeySet) Evaluation() (*he.EvaluationKeys, error) {
	b, err := k.read(evaluationName, k.hashes.Evaluation, maxEvaluation)
	if err != nil {
		return nil, err
	}
	keys, err := k.Plan.p.ParseEvaluationKeys(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(k.dir, evaluationName), err)
	}
	return keys, nil
}

// HasSecret says whether the secret key is here.
func (k *KeySet) HasSecret() bool {
	_, err := os.Lstat(filepath.Join(k.dir, secretName))
	return err == nil
}

// Secret opens the secret key. The caller wipes it.
func (k *KeySet) Secret(pass hsm.Passphrase) (*he.SecretKey, error) {
	sealed, err := k.read(secretName, "", maxKey)
	if k.Collective != nil {
		return nil, fmt.Errorf("%s: the key is in several hands, any %d of which decrypt together: fednode he party decrypt", k.dir, k.Plan.holders.Threshold)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no secret key: only who made the keys decrypts", k.dir)
	}
	if err != nil {
		return nil, err
	}
	ring, err := hsm.OpenKeyring(filepath.Join(k.dir, keyringName), pass)
	if err != nil {
		return nil, err
	}
	defer ring.Close()
	plain, err := ring.Sealer().Unseal(sealed, secretContext(k.ID))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(k.dir, secretName), err)
	}
	defer clear(plain)
	return k.Plan.p.ParseSecretKey(plain)
}
