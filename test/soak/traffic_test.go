package soak_test

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/tagstream/tagstream/test/simnet"
)

const (
	trafficRate  = 120 // actions a second
	trafficSlice = 25  // actions between two edges
	trafficBurst = 300 // actions at once, sometimes
)

// traffic generates ordinary activity with edge cases in between. It is not safe for concurrent
// use.
type traffic struct {
	network *simnet.Network
	edges   *simnet.Edges
	seed    uint64
	rng     *rand.Rand
	slices  uint64
}

func newTraffic(network *simnet.Network, seed uint64) *traffic {
	edges := simnet.NewEdges(network, seed)
	edges.DeletedStay = true
	return &traffic{network: network, edges: edges, seed: seed, rng: rand.New(rand.NewPCG(seed, 15))}
}

// run continues until ctx ends.
func (tr *traffic) run(ctx context.Context) error {
	for ctx.Err() == nil {
		tr.slices++
		slice := simnet.Traffic{Count: trafficSlice, Rate: trafficRate, Seed: tr.seed<<16 + tr.slices}
		if tr.rng.IntN(15) == 0 {
			slice.Count, slice.Rate = trafficBurst, 0
		}
		if err := slice.Run(ctx, tr.network); err != nil {
			return err
		}
		for range 2 {
			if err := tr.edges.Act(); err != nil {
				return fmt.Errorf("edge after slice %d: %w", tr.slices, err)
			}
		}
	}
	return nil
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }
