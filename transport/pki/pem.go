package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	"fednode/hsm/durable"
)

const (
	pemCertificate = "CERTIFICATE" // RFC 7468 section 5
	// maxFileCertificates bounds a certificate file; MaxChainBytes its size.
	maxFileCertificates = 16
)

// EncodeCertificates returns the certificates as PEM, in order.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})...)
	}
	return out
}

// ParseCertificates reads 1 to 16 certificates from PEM of at most 64 KiB. Text
// between the blocks is ignored, blocks of other types are refused.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	if len(text) > MaxChainBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, MaxChainBytes)
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != pemCertificate {
			return nil, fmt.Errorf("%w: it holds a PEM block %.40q; only %s belongs there", ErrMalformed, block.Type, pemCertificate)
		}
		if len(certs) == maxFileCertificates {
			return nil, fmt.Errorf("%w: more than %d certificates", ErrMalformed, maxFileCertificates)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate %d: %w", ErrMalformed, len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if bytes.Contains(text, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("%w: a PEM block after certificate %d is damaged", ErrMalformed, len(certs))
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w: it holds no certificate in PEM", ErrMalformed)
	}
	return certs, nil
}

// LoadCertificates reads a PEM file of certificates. A missing file is
// fs.ErrNotExist.
func LoadCertificates(path string) ([]*x509.Certificate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load certificates: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxChainBytes+1))
	if err != nil {
		return nil, fmt.Errorf("load certificates: %w", err)
	}
	certs, err := ParseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("load certificates: %s: %w", path, err)
	}
	return certs, nil
}

// SaveCertificates writes a PEM file of certificates, readable by all. It
// replaces a file of that name as a whole and returns when that is durable.
func SaveCertificates(path string, certs ...*x509.Certificate) error {
	if err := durable.Replace(path, EncodeCertificates(certs...), 0o644); err != nil {
		return fmt.Errorf("save certificates: %w", err)
	}
	return nil
}
