package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	authorityLife   = 10 * 365 * 24 * time.Hour
	certificateLife = 2 * 365 * 24 * time.Hour
	// clockSkew is how far another machine's clock may be behind.
	clockSkew = time.Hour
)

// leaf is a certificate to make.
type leaf struct {
	name  string
	hosts []string
	// peers also prove themselves to each other with it, as nodes of NATS do.
	peers bool
	user  func(options) int
}

// leaves name the servers as docker-compose.yml does, and NATS also as its chart
// does in Kubernetes, where the operator makes the certificates of Postgres.
var leaves = []leaf{
	{"nats", []string{"nats", "nats-2", "nats-3", "*.nats-headless", "localhost"}, true, func(o options) int { return o.programUser }},
	{"postgres", []string{"postgres", "postgres-standby", "localhost"}, false, func(o options) int { return o.postgresUser }},
}

// certificates makes the authority and what it signs. Its key is needed for
// nothing else and readable by no one but root: keep it off the machine if you like.
func (m *maker) certificates() error {
	missing, err := m.missing("ca.crt", "ca.key")
	if err != nil {
		return err
	}
	if missing {
		if err := m.authority(); err != nil {
			return err
		}
	}
	for _, l := range leaves {
		missing, err := m.missing(l.name+".crt", l.name+".key")
		if err != nil {
			return err
		}
		if !missing {
			continue
		}
		if err := m.sign(l); err != nil {
			return fmt.Errorf("make the certificate of %s: %w", l.name, err)
		}
	}
	return nil
}

func (m *maker) authority() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the authority: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Tagstream deployment"},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return m.putPair("ca", 0, template, template, key, key)
}

func (m *maker) sign(l leaf) error {
	authority, signer, err := m.loadAuthority()
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: l.name},
		DNSNames:              l.hosts,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(certificateLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if l.peers {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	return m.putPair(l.name, l.user(m.options), template, authority, key, signer)
}

// putPair writes a certificate and its key. A crash between the two leaves one
// alone, which missing reports.
func (m *maker) putPair(name string, user int, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := m.put(name+".key", modeOwner, user, user, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})); err != nil {
		return err
	}
	return m.put(name+".crt", modePublic, user, user, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (m *maker) loadAuthority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	read := func(name string) ([]byte, error) {
		text, err := os.ReadFile(filepath.Join(m.dir, name))
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("%s is not in PEM", name)
		}
		return block.Bytes, nil
	}
	der, err := read("ca.crt")
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("read ca.crt: %w", err)
	}
	secret, err := read("ca.key")
	if err != nil {
		return nil, nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("read ca.key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, errors.New("ca.key is not an ECDSA key")
	}
	return certificate, key, nil
}
