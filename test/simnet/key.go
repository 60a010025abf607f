package simnet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"math/big"

	atcrypto "github.com/jcalabro/atmos/crypto"
)

// signingKey is an account's P-256 repository key. It signs deterministically (RFC 6979), which the library's own keys
// do not, so that commit CIDs depend on the seed alone.
type signingKey struct {
	private *ecdsa.PrivateKey
	public  atcrypto.PublicKey
}

// newSigningKey derives the key of account number index.
func newSigningKey(seed uint64, index int) (*signingKey, error) {
	// A digest above the curve's order is not a key, with a chance of 2^-32. Then the next attempt
	// succeeds.
	for attempt := range uint64(8) {
		scalar := derive("signing key", seed, uint64(index), attempt)
		private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:])
		if err != nil {
			continue
		}
		parsed, err := atcrypto.ParsePrivateP256(scalar[:])
		if err != nil {
			return nil, fmt.Errorf("parse key of account %d: %w", index, err)
		}
		return &signingKey{private: private, public: parsed.PublicKey()}, nil
	}
	return nil, fmt.Errorf("derive key of account %d: no valid scalar in 8 attempts", index)
}

// PublicKey returns the verifying half.
func (k *signingKey) PublicKey() atcrypto.PublicKey { return k.public }

// HashAndSign signs the SHA-256 of content as R‖S with a low S, as atproto requires.
func (k *signingKey) HashAndSign(content []byte) ([]byte, error) {
	digest := sha256.Sum256(content)
	der, err := k.private.Sign(nil, digest[:], crypto.SHA256) // no random source: RFC 6979
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, fmt.Errorf("parse signature: %w", err)
	}
	order := elliptic.P256().Params().N
	if sig.S.Cmp(new(big.Int).Rsh(order, 1)) > 0 {
		sig.S.Sub(order, sig.S)
	}
	out := make([]byte, 64)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out, nil
}

// newDID derives the did:plc of account number index: 24 characters of lower-case base32.
func newDID(seed uint64, index int) string {
	sum := derive("did", seed, uint64(index))
	encoding := base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	return "did:plc:" + encoding.EncodeToString(sum[:15])
}

// derive hashes a purpose and numbers, so that no two purposes share bytes of one seed.
func derive(purpose string, parts ...uint64) [sha256.Size]byte {
	buf := append([]byte("tagstream simnet "), purpose...)
	for _, part := range parts {
		buf = binary.BigEndian.AppendUint64(buf, part)
	}
	return sha256.Sum256(buf)
}
