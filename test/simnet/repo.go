package simnet

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/jcalabro/atmos"
	"github.com/jcalabro/atmos/car"
	"github.com/jcalabro/atmos/cbor"
	atcrypto "github.com/jcalabro/atmos/crypto"
	"github.com/jcalabro/atmos/mst"
	"github.com/jcalabro/atmos/repo"
)

// Limits of one commit, from the Sync 1.1 specification. A verifier rejects larger ones.
const (
	maxCommitOps   = 200
	maxCommitBytes = 2_000_000
)

// Errors of the methods that change a repository. After each of them nothing was changed or
// emitted.
var (
	ErrUnknownAccount = errors.New("unknown account")
	ErrInactive       = errors.New("account is away")
	ErrRecordExists   = errors.New("record exists")
	ErrNoRecord       = errors.New("no such record")
	ErrCommitTooLarge = errors.New("commit too large")
)

// Action is the kind of an operation.
type Action string

// The actions of a repository operation.
const (
	Create Action = "create"
	Update Action = "update"
	Delete Action = "delete"
)

// Op is one operation of a commit.
type Op struct {
	Action     Action
	Collection string // an NSID; empty means PostCollection
	Rkey       string // a record key; empty on a create means a fresh TID
	// Record is the new record: a map[string]any of DAG-CBOR values (string, int, int64, float64,
	// bool, nil, []byte, []any, map[string]any), or encoded DAG-CBOR as []byte, stored unchanged.
	// Unused on a delete.
	Record any
}

// OpResult is one applied operation.
type OpResult struct {
	Action     Action
	Collection string
	Rkey       string
	URI        string // at://did/collection/rkey
	CID        string // of the new record; empty on a delete
	Record     []byte // the new record's DAG-CBOR; nil on a delete; shared, must not be changed
	prev       cbor.CID
}

// blockStore holds one repository's blocks. While touched is set, it records every block that is
// read or written: a commit's diff must contain them, including the neighbors of a changed key, for
// the tree to be invertible.
type blockStore struct {
	blocks  map[cbor.CID][]byte
	touched map[cbor.CID]struct{}
}

// GetBlock returns a block, or an error that wraps mst.ErrBlockNotFound.
func (s *blockStore) GetBlock(cid cbor.CID) ([]byte, error) {
	data, ok := s.blocks[cid]
	if !ok {
		return nil, fmt.Errorf("block %s: %w", cid, mst.ErrBlockNotFound)
	}
	if s.touched != nil {
		s.touched[cid] = struct{}{}
	}
	return data, nil
}

// PutBlock stores a block.
func (s *blockStore) PutBlock(cid cbor.CID, data []byte) error {
	s.blocks[cid] = data
	if s.touched != nil {
		s.touched[cid] = struct{}{}
	}
	return nil
}

// repository is one account's signed repository. The Network's lock guards it.
type repository struct {
	did   string
	key   *signingKey
	store *blockStore
	root  cbor.CID            // tree root of the head
	head  cbor.CID            // head commit's CID
	rev   string              // head commit's revision
	index map[string]cbor.CID // collection/rkey -> record
	kept  int                 // number of blocks after the last collection
}

// newRepository returns a repository with an empty first commit at rev.
func newRepository(did string, key *signingKey, rev string) (*repository, error) {
	r := &repository{did: did, key: key, store: &blockStore{blocks: map[cbor.CID][]byte{}}, index: map[string]cbor.CID{}}
	root, err := mst.NewTree(r.store).WriteBlocks(r.store)
	if err != nil {
		return nil, fmt.Errorf("write empty tree of %s: %w", did, err)
	}
	if err := r.sign(root, rev); err != nil {
		return nil, err
	}
	return r, nil
}

// sign signs a commit of the tree at root and moves the head to it.
func (r *repository) sign(root cbor.CID, rev string) error {
	commit := &repo.Commit{DID: r.did, Version: 3, Data: root, Rev: rev}
	if err := commit.Sign(r.key); err != nil {
		return fmt.Errorf("sign commit %s of %s: %w", rev, r.did, err)
	}
	data, err := commit.EncodeCBOR()
	if err != nil {
		return fmt.Errorf("encode commit %s of %s: %w", rev, r.did, err)
	}
	r.head, r.root, r.rev = cbor.ComputeCID(cbor.CodecDagCBOR, data), root, rev
	r.store.blocks[r.head] = data
	return nil
}

// apply applies the operations and signs the result as rev. It returns the applied operations and
// the diff: a CAR of the commit and of every block that the operations touched. On an error the
// head is unchanged.
func (r *repository) apply(ops []Op, rev string) ([]OpResult, []byte, error) {
	if len(ops) > maxCommitOps {
		return nil, nil, fmt.Errorf("commit of %d operations on %s, at most %d: %w", len(ops), r.did, maxCommitOps, ErrCommitTooLarge)
	}
	r.store.touched = map[cbor.CID]struct{}{}
	defer func() { r.store.touched = nil }()

	tree := mst.LoadTree(r.store, r.root)
	results := make([]OpResult, 0, len(ops))
	seen := make(map[string]bool, len(ops))
	for _, op := range ops {
		path := op.Collection + "/" + op.Rkey
		if seen[path] {
			return nil, nil, fmt.Errorf("%s twice in one commit of %s: %w", path, r.did, ErrRecordExists)
		}
		seen[path] = true
		result, err := r.applyOne(tree, op, path)
		if err != nil {
			return nil, nil, fmt.Errorf("%s %s of %s: %w", op.Action, path, r.did, err)
		}
		results = append(results, result)
	}
	root, err := tree.WriteBlocks(r.store)
	if err != nil {
		return nil, nil, fmt.Errorf("write tree of %s: %w", r.did, err)
	}
	if err := r.invert(root, results); err != nil {
		return nil, nil, err
	}
	size := 0
	for cid := range r.store.touched {
		size += len(r.store.blocks[cid])
	}
	if size > maxCommitBytes*9/10 {
		return nil, nil, fmt.Errorf("commit of %d bytes on %s: %w", size, r.did, ErrCommitTooLarge)
	}
	if err := r.sign(root, rev); err != nil {
		return nil, nil, err
	}
	r.store.touched[r.head] = struct{}{}
	for _, result := range results {
		path := result.Collection + "/" + result.Rkey
		if result.Action == Delete {
			delete(r.index, path)
			continue
		}
		r.index[path] = cbor.ComputeCID(cbor.CodecDagCBOR, result.Record)
	}
	diff, err := r.car(r.store.touched)
	if err != nil {
		return nil, nil, err
	}
	return results, diff, r.collect()
}

// invert undoes the operations on the new tree like a verifier, and checks that the result is the
// old tree. It reads blocks that applying them did not: removing a key can join subtrees without
// reading them, but reinserting it splits them. The store records these for the diff.
func (r *repository) invert(root cbor.CID, results []OpResult) error {
	tree := mst.LoadTree(r.store, root)
	for _, result := range results {
		path := result.Collection + "/" + result.Rkey
		var err error
		if result.Action == Create {
			err = tree.Remove(path)
		} else {
			err = tree.Insert(path, result.prev)
		}
		if err != nil {
			return fmt.Errorf("invert %s %s of %s: %w", result.Action, path, r.did, err)
		}
	}
	inverted, err := tree.RootCID()
	if err != nil {
		return fmt.Errorf("invert commit of %s: %w", r.did, err)
	}
	if inverted != r.root {
		return fmt.Errorf("invert commit of %s: root is %s, not %s", r.did, inverted, r.root)
	}
	return nil
}

// applyOne changes the tree by one operation.
func (r *repository) applyOne(tree *mst.Tree, op Op, path string) (OpResult, error) {
	if _, err := atmos.ParseNSID(op.Collection); err != nil {
		return OpResult{}, fmt.Errorf("collection: %w", err)
	}
	if _, err := atmos.ParseRecordKey(op.Rkey); err != nil {
		return OpResult{}, fmt.Errorf("record key: %w", err)
	}
	result := OpResult{Action: op.Action, Collection: op.Collection, Rkey: op.Rkey, URI: "at://" + r.did + "/" + path}
	prev, exists := r.index[path]
	switch {
	case op.Action == Create && exists:
		return OpResult{}, ErrRecordExists
	case op.Action != Create && !exists:
		return OpResult{}, ErrNoRecord
	}
	result.prev = prev
	if op.Action == Delete {
		if err := tree.Remove(path); err != nil {
			return OpResult{}, fmt.Errorf("remove from tree: %w", err)
		}
		return result, nil
	}
	data, raw := op.Record.([]byte)
	if !raw {
		var err error
		if data, err = cbor.Marshal(op.Record); err != nil {
			return OpResult{}, fmt.Errorf("encode record: %w", err)
		}
	}
	cid := cbor.ComputeCID(cbor.CodecDagCBOR, data)
	if err := r.store.PutBlock(cid, data); err != nil {
		return OpResult{}, err
	}
	if err := tree.Insert(path, cid); err != nil {
		return OpResult{}, fmt.Errorf("insert into tree: %w", err)
	}
	result.CID, result.Record = cid.String(), data
	return result, nil
}

// records returns every record as a create, sorted by collection and key.
func (r *repository) records() []OpResult {
	paths := make([]string, 0, len(r.index))
	for path := range r.index {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	results := make([]OpResult, 0, len(paths))
	for _, path := range paths {
		collection, rkey := repo.SplitMSTKey(path)
		cid := r.index[path]
		results = append(results, OpResult{Action: Create, Collection: collection, Rkey: rkey,
			URI: "at://" + r.did + "/" + path, CID: cid.String(), Record: r.store.blocks[cid]})
	}
	return results
}

// export returns the whole repository as a CAR whose root is the announced head.
func (r *repository) export() ([]byte, error) {
	reachable, err := r.reachable()
	if err != nil {
		return nil, err
	}
	return r.car(reachable)
}

// headCAR returns a CAR of the head commit alone, which is what a #sync carries.
func (r *repository) headCAR() ([]byte, error) {
	return r.car(map[cbor.CID]struct{}{r.head: {}})
}

// car returns a CAR with the head first, then the other blocks in the order of their CIDs.
func (r *repository) car(set map[cbor.CID]struct{}) ([]byte, error) {
	blocks := make([]car.Block, 0, len(set)+1)
	blocks = append(blocks, car.Block{CID: r.head, Data: r.store.blocks[r.head]})
	for cid := range set {
		// An aborted commit may have touched a block that a collection dropped since.
		if data, ok := r.store.blocks[cid]; ok && cid != r.head {
			blocks = append(blocks, car.Block{CID: cid, Data: data})
		}
	}
	slices.SortFunc(blocks[1:], func(a, b car.Block) int { return bytes.Compare(a.CID.Bytes(), b.CID.Bytes()) })
	var buf bytes.Buffer
	if err := car.WriteAll(&buf, []cbor.CID{r.head}, blocks); err != nil {
		return nil, fmt.Errorf("write CAR of %s: %w", r.did, err)
	}
	return buf.Bytes(), nil
}

// reachable returns the head, every node of its tree and every record.
func (r *repository) reachable() (map[cbor.CID]struct{}, error) {
	set := map[cbor.CID]struct{}{r.head: {}}
	pending := []cbor.CID{r.root}
	for len(pending) > 0 {
		cid := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		set[cid] = struct{}{}
		data, ok := r.store.blocks[cid]
		if !ok {
			return nil, fmt.Errorf("tree node %s of %s: %w", cid, r.did, mst.ErrBlockNotFound)
		}
		node, err := mst.DecodeNodeData(data)
		if err != nil {
			return nil, fmt.Errorf("decode tree node %s of %s: %w", cid, r.did, err)
		}
		if node.Left.HasVal() {
			pending = append(pending, node.Left.Val())
		}
		for _, entry := range node.Entries {
			set[entry.Value] = struct{}{}
			if entry.Right.HasVal() {
				pending = append(pending, entry.Right.Val())
			}
		}
	}
	return set, nil
}

// collect drops unreachable blocks once they are the majority, so that a repository's memory
// depends on its records, not on its history.
func (r *repository) collect() error {
	const slack = 128
	if len(r.store.blocks) < 2*r.kept+slack {
		return nil
	}
	reachable, err := r.reachable()
	if err != nil {
		return err
	}
	for cid := range r.store.blocks {
		if _, ok := reachable[cid]; !ok {
			delete(r.store.blocks, cid)
		}
	}
	r.kept = len(r.store.blocks)
	return nil
}

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
