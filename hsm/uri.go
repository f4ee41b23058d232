package hsm

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// maxURI bounds a key URI in bytes; Linux allows paths of 4096.
const maxURI = 4096

// parseFileURI returns the path a file: URI names (RFC 8089), and whether it is
// relative to the keyring's directory. A relative path never leaves it.
func parseFileURI(uri string) (path string, relative bool, err error) {
	if len(uri) > maxURI {
		return "", false, fmt.Errorf("key URI of %d bytes is too long: the limit is %d", len(uri), maxURI)
	}
	scheme, _, found := strings.Cut(uri, ":")
	if !found {
		return "", false, fmt.Errorf("key URI %q has no scheme: write file:PATH", uri)
	}
	switch strings.ToLower(scheme) {
	case "file":
	case "tpm":
		return "", false, fmt.Errorf("key URI %q: %w: keys in a TPM are not supported by this build; use file:PATH", uri, ErrScheme)
	case "pkcs11":
		// RFC 7512 URIs may carry a PIN: name the scheme, not the URI.
		return "", false, fmt.Errorf("key URI pkcs11:…: %w: keys in PKCS#11 modules are not supported by this build; use file:PATH", ErrScheme)
	default:
		return "", false, fmt.Errorf("key URI scheme %q: %w: use file:PATH", scheme, ErrScheme)
	}
	u, err := url.Parse(uri)
	if err != nil {
		return "", false, fmt.Errorf("key URI %q: %w", uri, errors.Unwrap(err))
	}
	if u.Host != "" || u.User != nil {
		return "", false, fmt.Errorf("key URI %q names a host: write file:/PATH for an absolute path, file:PATH for one in the keyring", uri)
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", false, fmt.Errorf("key URI %q: queries and fragments mean nothing here; percent-encode ? and #", uri)
	}
	path = u.Path
	if u.Opaque != "" {
		relative = true
		if path, err = url.PathUnescape(u.Opaque); err != nil {
			return "", false, fmt.Errorf("key URI %q: %w", uri, err)
		}
	}
	switch {
	case path == "" || strings.HasSuffix(path, "/"):
		return "", false, fmt.Errorf("key URI %q names no file", uri)
	case strings.ContainsRune(path, 0):
		return "", false, fmt.Errorf("key URI %q holds a NUL byte", uri)
	case relative && (!filepath.IsLocal(path) || filepath.Clean(path) == "."):
		return "", false, fmt.Errorf("key URI %q leaves the keyring's directory: write file:/PATH for an absolute path", uri)
	}
	return filepath.Clean(path), relative, nil
}
