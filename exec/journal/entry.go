package journal

import (
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/exec/platform"
	"github.com/buildmesh/buildmesh/mesh/peer"
	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
	usagev1 "github.com/buildmesh/buildmesh/proto/usage/v1"
)

// Bounds of an entry.
const (
	maxText     = 1024 // bytes of any text
	maxAttempts = 16
	maxScores   = 24 // of one attempt
	maxEvents   = 32 // of one attempt
)

// clip bounds a text and makes it valid.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText-3] + "..."
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "?")
	}
	return s
}

// entryOf is the entry for a flight that was over at a time.
func (j *Journal) entryOf(e flight.Ending, at time.Time) *journalv1.Entry {
	a := e.Action
	entry := newEntry(a.Digest, e.Request.Meta, at)
	entry.Command, entry.InputRoot, entry.Instance = a.CommandDigest.String(), a.InputRoot.String(), clip(e.Request.Instance)
	entry.Output = clip(leastOutput(a))
	if entry.Target == "" && entry.Mnemonic == "" {
		entry.Words = clip(a.Words())
	}
	entry.ArgumentsSum, entry.EnvironmentSum, entry.PlatformSum = sumOf(a.Arguments...), sumOf(slices.Sorted(slices.Values(a.Env))...), platformSum(a.Platform)
	entry.Subject = subjectOf(entry)
	entry.Cache = cacheOf(e)
	entry.Outcome = outcomeOf(e.Response)
	entry.Timeline, entry.Merged = timelineOf(e, at), clip(e.Merged)
	if e.Vain != nil {
		entry.Vain = clip(e.Vain.Error())
	}
	if e.Placement != nil {
		entry.Placing = j.placingOf(e.Placement)
	}
	return entry
}

// hitEntry is the entry for a known result.
func hitEntry(h Hit, at time.Time) *journalv1.Entry {
	entry := newEntry(h.Action, h.Meta, at)
	for _, path := range resultPaths(h.Result) {
		if entry.Output == "" || path < entry.Output {
			entry.Output = clip(path)
		}
	}
	entry.Subject = subjectOf(entry)
	entry.Cache = hitOf(h.From)
	entry.Outcome = outcomeOf(&repb.ExecuteResponse{Result: h.Result})
	return entry
}

// newEntry is what every entry says.
func newEntry(action digest.Digest, m flight.Meta, at time.Time) *journalv1.Entry {
	return &journalv1.Entry{
		At: timestamppb.New(at), Function: action.Function().String(), Action: action.String(),
		Tool: clip(m.Tool), Invocation: clip(m.Invocation), Target: clip(m.Target), Mnemonic: clip(m.Mnemonic),
	}
}

// subjectOf is equal for entries about the same piece of work: one target makes one output with many actions in turn.
// Where the client names no target, the same command with the same output counts as the same work.
func subjectOf(e *journalv1.Entry) uint64 {
	if e.Target == "" {
		return sumOf("", e.Instance, e.Output, string(digits(e.ArgumentsSum)))
	}
	return sumOf(e.Target, e.Mnemonic, e.Output)
}

func digits(n uint64) []byte {
	return []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), byte(n >> 32), byte(n >> 40), byte(n >> 48), byte(n >> 56)}
}

// leastOutput is the least path an action makes.
func leastOutput(a *action.Action) (least string) {
	for i, o := range a.Outputs {
		if i == 0 || o.Path < least {
			least = o.Path
		}
	}
	return least
}

// resultPaths are the paths of a result.
func resultPaths(r *repb.ActionResult) (paths []string) {
	for _, f := range r.GetOutputFiles() {
		paths = append(paths, f.GetPath())
	}
	for _, d := range r.GetOutputDirectories() {
		paths = append(paths, d.GetPath())
	}
	return paths
}

// platformSum is equal for equal requests.
func platformSum(r platform.Request) uint64 { return sumOf(platformLines(r)...) }

// cacheOf is what the look-up said.
func cacheOf(e flight.Ending) *journalv1.Cache {
	c := &journalv1.Cache{}
	switch {
	case e.Refused:
		c.Verdict = journalv1.Cache_VERDICT_REFUSED
	case e.Response.GetCachedResult():
		return hitOf(e.Lookup.From)
	case e.Action.DoNotCache:
		c.Verdict = journalv1.Cache_VERDICT_UNCACHEABLE
	case !e.Lookup.Asked:
		c.Verdict = journalv1.Cache_VERDICT_SKIPPED
	default:
		c.Verdict = journalv1.Cache_VERDICT_MISS
		if err := e.Lookup.Err; err != nil && !errors.Is(err, flight.ErrNotCached) {
			c.Reason = clip(err.Error())
		}
	}
	return c
}

func hitOf(from string) *journalv1.Cache {
	if from == "" {
		return &journalv1.Cache{Verdict: journalv1.Cache_VERDICT_HIT_HERE}
	}
	return &journalv1.Cache{Verdict: journalv1.Cache_VERDICT_HIT_MEMBER, From: clip(from)}
}

// outcomeOf is how it ended.
func outcomeOf(r *repb.ExecuteResponse) *journalv1.Outcome {
	result := r.GetResult()
	m := result.GetExecutionMetadata()
	o := &journalv1.Outcome{
		Status: r.GetStatus().GetCode(), StatusText: clip(r.GetStatus().GetMessage()), ExitCode: result.GetExitCode(),
		Worker: clip(m.GetWorker()), Message: clip(r.GetMessage()),
	}
	var sums []string
	for _, f := range result.GetOutputFiles() {
		o.Outputs++
		o.OutputBytes += f.GetDigest().GetSizeBytes()
		sums = append(sums, f.GetPath(), f.GetDigest().GetHash())
	}
	for _, d := range result.GetOutputDirectories() {
		o.Outputs++
		sums = append(sums, d.GetPath(), d.GetTreeDigest().GetHash(), d.GetRootDirectoryDigest().GetHash())
	}
	if len(sums) > 0 {
		o.OutputsSum = sumOf(sums...)
	}
	for _, extra := range m.GetAuxiliaryMetadata() {
		var u usagev1.ResourceUsage
		if extra.MessageIs(&u) && extra.UnmarshalTo(&u) == nil {
			o.Processor, o.MemoryBytes = durationpb.New(u.UserTime.AsDuration()+u.SystemTime.AsDuration()), u.MaxResidentBytes
		}
	}
	return o
}

// timelineOf is how long the parts took. The clocks of two machines, or one that was set, make no part negative.
func timelineOf(e flight.Ending, at time.Time) *journalv1.Timeline {
	t := &journalv1.Timeline{Total: durationpb.New(max(at.Sub(e.Created), 0))}
	if e.Response.GetCachedResult() {
		return t
	}
	m := e.Response.GetResult().GetExecutionMetadata()
	t.Queued = between(m.GetQueuedTimestamp(), m.GetWorkerStartTimestamp())
	t.Fetch = between(m.GetInputFetchStartTimestamp(), m.GetInputFetchCompletedTimestamp())
	t.Run = between(m.GetExecutionStartTimestamp(), m.GetExecutionCompletedTimestamp())
	t.Upload = between(m.GetOutputUploadStartTimestamp(), m.GetOutputUploadCompletedTimestamp())
	return t
}

// between is the time from one moment to another; nil when one is not known.
func between(from, to *timestamppb.Timestamp) *durationpb.Duration {
	if from == nil || to == nil {
		return nil
	}
	return durationpb.New(max(to.AsTime().Sub(from.AsTime()), 0))
}

// placingOf is how a place was found, within bounds.
func (j *Journal) placingOf(t *place.Trace) *journalv1.Placing {
	p := &journalv1.Placing{Class: t.Class.String(), Waited: durationpb.New(max(t.Waited, 0)), More: int64(max(0, len(t.Attempts)-maxAttempts))}
	for _, a := range t.Attempts[:min(len(t.Attempts), maxAttempts)] {
		one := &journalv1.Attempt{
			Number: a.Attempt, PeerId: j.spell(a.Peer), Name: clip(j.options.Name(a.Peer)), Self: a.Self, Hedge: a.Hedge, Won: a.Won,
			Cores: a.Cores, MemoryBytes: a.MemoryBytes,
		}
		for _, s := range a.Scores[:min(len(a.Scores), maxScores)] {
			one.Scores = append(one.Scores, &journalv1.Score{
				Name: clip(j.options.Name(s.Peer)), PeerId: j.spell(s.Peer), Total: s.Total, Speed: s.Speed, Load: s.Load,
				Locality: s.Locality, Transfer: s.Transfer, Refused: clip(s.Refused),
			})
		}
		for _, e := range a.Events[:min(len(a.Events), maxEvents)] {
			one.Events = append(one.Events, &journalv1.Event{After: durationpb.New(max(e.After, 0)), What: clip(e.What)})
		}
		p.Attempts = append(p.Attempts, one)
	}
	if t.Learned != (place.Sample{}) {
		p.Need = needOf(t.Learned)
	}
	return p
}

func needOf(s place.Sample) *journalv1.Need {
	return &journalv1.Need{Run: durationpb.New(s.Duration), Cores: s.Cores, MemoryBytes: s.MemoryBytes, InputBytes: s.InputBytes, OutputBytes: s.OutputBytes, Own: s.Own, Starved: s.Starved}
}

// sampleOf is what needOf was given.
func sampleOf(n *journalv1.Need) place.Sample {
	return place.Sample{Duration: n.Run.AsDuration(), Cores: n.Cores, MemoryBytes: n.MemoryBytes, InputBytes: n.InputBytes, OutputBytes: n.OutputBytes, Own: n.Own, Starved: n.Starved}
}

// spell is a peer's id in letters, which take long to make. Only the writer calls it.
func (j *Journal) spell(id peer.ID) string {
	text, known := j.spelled[id]
	if !known {
		if j.spelled == nil || len(j.spelled) >= 1024 {
			j.spelled = map[peer.ID]string{}
		}
		text = id.String()
		j.spelled[id] = text
	}
	return text
}
