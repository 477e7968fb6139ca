package reapi

import (
	"time"

	"github.com/buildmesh/buildmesh/dht/chunk"
)

// Defaults of Limits' zero values.
const (
	// DefaultMaxBatch is advertised as max_batch_total_size_bytes: what a message of gRPC's default
	// size holds beside the digests of some 700 blobs. Clients that fill a batch to the brim, as
	// BuildStream does with 4,108,544 bytes, fit.
	DefaultMaxBatch     = grpcMessage - 64<<10
	DefaultMaxIdle      = 256
	DefaultMaxIdleBytes = 8 << 30
	DefaultIdleFor      = 10 * time.Minute
	DefaultMaxTreeNodes = 1 << 20
	DefaultMaxChunks    = 1 << 18
	DefaultChunkAverage = chunk.DefaultAverage
)

// grpcMessage is the largest message a gRPC client receives unless told otherwise, in bytes.
const grpcMessage = 4 << 20

// maxMessage is the largest message this server receives, in bytes: twice a client's own limit.
const maxMessage = 8 << 20

// Limits bound what one client may ask for; every zero value means the default.
type Limits struct {
	// MaxBatch is the total size in bytes of the blobs in one batch call, uncompressed.
	MaxBatch int64
	// MaxBlob is the largest blob in bytes that may be uploaded; 0 means that only the store decides.
	MaxBlob int64
	// MaxIdle and MaxIdleBytes bound the partial uploads that wait to be resumed, in number and in
	// bytes of the blobs they are for. The longest idle one goes first.
	MaxIdle      int
	MaxIdleBytes int64
	// IdleFor is how long a partial upload waits to be resumed.
	IdleFor time.Duration
	// MaxTreeNodes is the largest number of directories GetTree visits.
	MaxTreeNodes int
	// MaxChunks is the largest number of chunks one blob is spliced from.
	MaxChunks int
	// ChunkAverage is the average size in bytes of the chunks that blobs are split into: a power of 2.
	ChunkAverage int64
}

// withDefaults fills the zero values in.
func (l Limits) withDefaults() Limits {
	set(&l.MaxBatch, DefaultMaxBatch)
	set(&l.MaxIdle, DefaultMaxIdle)
	set(&l.MaxIdleBytes, DefaultMaxIdleBytes)
	set(&l.IdleFor, DefaultIdleFor)
	set(&l.MaxTreeNodes, DefaultMaxTreeNodes)
	set(&l.MaxChunks, DefaultMaxChunks)
	set(&l.ChunkAverage, DefaultChunkAverage)
	return l
}

// set gives a zero value its default.
func set[T comparable](value *T, standard T) {
	var zero T
	if *value == zero {
		*value = standard
	}
}

// maxResponse is the largest message sent, in bytes: what a client receives by default, or more
// when larger batches are advertised.
func (l Limits) maxResponse() int64 { return max(grpcMessage, l.MaxBatch+64<<10) }
