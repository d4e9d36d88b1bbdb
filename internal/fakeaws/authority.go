package fakeaws

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// certificateLife is how long the certificates of one server hold; its keys are never written anywhere.
const certificateLife = 30 * 24 * time.Hour

// authority is a certificate authority of one server's own, with the one certificate it issued.
type authority struct {
	pem  []byte
	leaf tls.Certificate
}

// tlsConfig is what StartTLS serves with.
func (s *Server) tlsConfig(a *authority) *tls.Config {
	c := &tls.Config{Certificates: []tls.Certificate{a.leaf}, MinVersion: s.cfg.MinTLS, MaxVersion: s.cfg.MaxTLS}
	if !s.cfg.Protocols.HTTP1() {
		// crypto/tls lets a client that offers http/1.1 alone pass where h2 alone is spoken.
		refusing := c.Clone()
		refusing.NextProtos = []string{"h2 alone"}
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(hello.SupportedProtos, "h2") {
				return nil, nil
			}
			return refusing, nil
		}
	}
	return c
}

// TLSConfig is what StartTLS serves with, its certificate in it: for servers that are to stand in another's place.
func (s *Server) TLSConfig() (*tls.Config, error) {
	a, err := s.authority()
	if err != nil {
		return nil, err
	}
	return s.tlsConfig(a), nil
}

// authority returns the server's authority, made when first asked for.
func (s *Server) authority() (*authority, error) {
	s.httpMu.Lock()
	defer s.httpMu.Unlock()
	if s.ca == nil {
		ca, err := newAuthority(s.cfg.Hosts, s.cfg.CertificateEnd)
		if err != nil {
			return nil, fmt.Errorf("make certificates: %w", err)
		}
		s.ca = ca
	}
	return s.ca, nil
}

// CAPEM returns the certificate, in PEM, of the authority that clients of StartTLS must trust: the contents of a file for
// AWS_CA_BUNDLE or for Fluent Bit's tls.ca_file.
func (s *Server) CAPEM() ([]byte, error) {
	a, err := s.authority()
	if err != nil {
		return nil, err
	}
	return a.pem, nil
}

func newAuthority(hosts []string, end time.Time) (*authority, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	notBefore := time.Now().Add(-time.Hour)
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "fakeaws test authority"},
		NotBefore:             notBefore,
		NotAfter:              notBefore.Add(certificateLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	issuer, err := x509.ParseCertificate(caDER)
	if err != nil {
		return nil, err
	}
	if end.IsZero() {
		end = ca.NotAfter
	}
	leaf := &x509.Certificate{
		SerialNumber:          big.NewInt(2),
		Subject:               pkix.Name{CommonName: "localhost"},
		DNSNames:              append([]string{"localhost"}, hosts...),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:             notBefore,
		NotAfter:              end,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, issuer, &leafKey.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	return &authority{
		pem:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		leaf: tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey},
	}, nil
}
