package backfill

import "hash/maphash"

// bloom is a set of strings in a fixed amount of memory. It contains everything that was added, and
// possibly strings that were not.
type bloom struct {
	seed maphash.Seed
	bits []uint64
}

const (
	// bloomBytes holds 14 million strings with one percent of false positives.
	bloomBytes  = 16 << 20
	bloomHashes = 7
)

func newBloom() *bloom { return &bloom{maphash.MakeSeed(), make([]uint64, bloomBytes/8)} }

func (b *bloom) add(s string) {
	h := maphash.String(b.seed, s)
	for i := range uint64(bloomHashes) {
		n := bit(h, i)
		b.bits[n/64] |= 1 << (n % 64)
	}
}

func (b *bloom) has(s string) bool {
	h := maphash.String(b.seed, s)
	for i := range uint64(bloomHashes) {
		n := bit(h, i)
		if b.bits[n/64]&(1<<(n%64)) == 0 {
			return false
		}
	}
	return true
}

// bit returns the i-th bit for a hash (Kirsch and Mitzenmacher: two hashes make all).
func bit(h, i uint64) uint64 {
	return (h + i*(h>>32|1)) % (bloomBytes * 8)
}
