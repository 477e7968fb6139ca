package main

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/node/config"
	"github.com/buildmesh/buildmesh/node/human"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// cacheVerb is `buildmesh cache`.
type cacheVerb struct {
	Stat     cacheStatVerb     `cmd:"" help:"Print what the cache holds."`
	Verify   cacheVerifyVerb   `cmd:"" help:"Read every blob and check it against its digest."`
	Ls       cacheLsVerb       `cmd:"" name:"ls" help:"List signed results: who ran what, who else has it, and what this node's clients call it."`
	Pin      cachePinVerb      `cmd:"" help:"Keep a target, an artifact or a tree from eviction."`
	Disputes cacheDisputesVerb `cmd:"" help:"List actions about whose results members disagree."`
	GC       cacheGCVerb       `cmd:"" name:"gc" help:"Give the disk of removed blobs back now."`
}

// cacheStatVerb is `buildmesh cache stat`.
type cacheStatVerb struct{}

// Run prints what the cache holds.
func (cacheStatVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := client.CacheStat(v.ctx, &controlv1.CacheStatRequest{})
	if err != nil {
		return plain(err)
	}
	shared, err := client.Content.Sharing(v.ctx, &controlv1.SharingRequest{})
	if err != nil && status.Code(err) != codes.FailedPrecondition { // a node without a mesh shares nothing
		return plain(err)
	}
	rows := append([]string{"directory\t" + s.Dir}, storeRows(s.Store, s.Results)...)
	rows = append(rows, sharingRows(shared)...)
	return v.table(append(rows,
		fmt.Sprintf("removed\t%s waiting to be given back (buildmesh cache gc)", human.Bytes(s.Store.GetDeadBytes())),
		fmt.Sprintf("held\t%s blobs that may not be evicted now", human.Count(s.Store.GetPinned())),
		fmt.Sprintf("evicted\t%s blobs since the start", human.Count(s.Store.GetEvicted())),
		fmt.Sprintf("index\t%s of memory", human.Bytes(s.Store.GetIndexMemoryBytes())),
		fmt.Sprintf("staged\t%s input layers, %s", human.Count(s.StagedLayers), human.Bytes(s.StagedBytes)),
	))
}

// cacheVerifyVerb is `buildmesh cache verify`.
type cacheVerifyVerb struct {
	Rate string `placeholder:"SIZE" default:"0" help:"Read at most so much a second, such as 50MiB (default: no bound)."`
}

// Run shows the progress of a verification; it ends with errFound when a blob was corrupt.
func (c *cacheVerifyVerb) Run(v *verbContext) error {
	rate, err := config.ParseSize(c.Rate)
	if err != nil {
		return usageError{fmt.Errorf("--rate: %w", err)}
	}
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	stream, err := client.CacheVerify(v.ctx, &controlv1.CacheVerifyRequest{BytesPerSecond: int64(rate)})
	if err != nil {
		return plain(err)
	}
	for {
		p, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the node ended the verification early")
		}
		if err != nil {
			return plain(err)
		}
		if !p.Done {
			fmt.Fprintf(v.errOut, "%s of %s blobs, %s\n", human.Count(p.Blobs), human.Count(p.TotalBlobs), human.Bytes(p.Bytes))
			continue
		}
		for _, d := range p.Corrupt {
			fmt.Fprintf(v.out, "corrupt, moved aside: %s\n", d)
		}
		fmt.Fprintf(v.out, "%s blobs, %s read: %s corrupt\n", human.Count(p.Blobs), human.Bytes(p.Bytes), human.Count(int64(len(p.Corrupt))))
		if len(p.Corrupt) > 0 {
			return errFound
		}
		return nil
	}
}

// cacheGCVerb is `buildmesh cache gc`.
type cacheGCVerb struct{}

// Run gives the disk of removed blobs back.
func (cacheGCVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.CacheCollect(v.ctx, &controlv1.CacheCollectRequest{})
	if err != nil {
		return plain(err)
	}
	_, err = fmt.Fprintf(v.out, "%s given back\n", human.Bytes(answer.FreedBytes))
	return err
}
