package lab

import "math/rand/v2"

// pair is two tags and how their posts overlap.
type pair struct {
	Name string
	A, B string
	// has returns which of the two tags post i of n has.
	has func(rng *rand.Rand, i, n int) (a, b bool)
}

// sparseName is the pair whose lists must be read far to find few posts.
const sparseName = "1:1, sparse overlap"

// pairs returns the cases for all of two tags.
func pairs() []pair {
	chance := func(rng *rand.Rand, share float64) bool { return rng.Float64() < share }
	all := []pair{
		{Name: "skewed 1:1000", has: func(rng *rand.Rand, i, _ int) (bool, bool) {
			a := i%20_000 == 9_999
			return a, chance(rng, 0.05) || a && i/20_000%2 == 0
		}},
		{Name: "skewed 1:10", has: func(rng *rand.Rand, _, _ int) (bool, bool) {
			a := chance(rng, 0.005)
			return a, chance(rng, 0.05) || a && chance(rng, 0.5)
		}},
		{Name: "1:1, dense overlap", has: func(rng *rand.Rand, _, _ int) (bool, bool) {
			if !chance(rng, 0.02) {
				return false, false
			}
			u := rng.Float64()
			return u < 0.95, u > 0.05
		}},
		{Name: sparseName, has: func(rng *rand.Rand, i, _ int) (bool, bool) {
			if i%10_000 == 7_777 {
				return true, true
			}
			u := rng.Float64()
			return u < 0.02, u > 0.98
		}},
		{Name: "1:1, old half against new half", has: func(rng *rand.Rand, i, n int) (bool, bool) {
			hit := chance(rng, 0.04)
			return hit && i < n/2, hit && i >= n/2
		}},
		{Name: "1:1, bursts that alternate", has: func(rng *rand.Rand, i, n int) (bool, bool) {
			const bursts = 200
			every := n / bursts
			if i%every == every-1 { // where one burst ends and the next begins
				return true, true
			}
			hit := chance(rng, 0.10)
			return hit && i/every%2 == 0, hit && i/every%2 == 1
		}},
	}
	for i := range all {
		all[i].A, all[i].B = "pair-"+string(rune('1'+i))+"a", "pair-"+string(rune('1'+i))+"b"
	}
	return all
}

func (c *corpus) pairTags() []string {
	var tags []string
	for _, p := range c.pairs {
		a, b := p.has(c.rng, c.made, c.cfg.Posts)
		if a {
			tags = append(tags, p.A)
		}
		if b {
			tags = append(tags, p.B)
		}
	}
	return tags
}
