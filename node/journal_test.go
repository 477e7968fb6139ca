package node

import (
	"context"
	"slices"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
)

// about is a context with the metadata that a client sends about a target.
func about(t testing.TB, target string) context.Context {
	t.Helper()
	return saying(t, &repb.RequestMetadata{TargetId: target, ActionMnemonic: "Genrule", ToolInvocationId: "one"})
}

// saying is a context with what a client says of itself.
func saying(t testing.TB, m *repb.RequestMetadata) context.Context {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return metadata.AppendToOutgoingContext(t.Context(), "build.bazel.remote.execution.v2.requestmetadata-bin", string(data))
}

// executedFor executes an action for a target.
func (s *started) executedFor(t *testing.T, target string, action digest.Digest) *repb.ExecuteResponse {
	t.Helper()
	stream, err := repb.NewExecutionClient(s.conn).Execute(about(t, target), &repb.ExecuteRequest{ActionDigest: action.Proto()})
	if err != nil {
		t.Fatal(err)
	}
	return response(t, stream)
}

// why asks as the command line does.
func (s *started) why(t *testing.T, subject string) *controlv1.WhyResponse {
	t.Helper()
	answer, err := journalAnswers{node: s.Node}.Why(t.Context(), &controlv1.WhyRequest{Subject: subject})
	if err != nil {
		t.Fatalf("why %q: %v", subject, err)
	}
	return answer
}

// TestWhy: a node tells why it ran an action, what changed since the last one of its target, who gave a known result, and
// who ran what did not fit here and why.
func TestWhy(t *testing.T) {
	p := newPairOf(t, nil, []string{"exec.pools=default,big"})
	if _, err := (journalAnswers{node: p.ben.Node}).Why(t.Context(), &controlv1.WhyRequest{}); status.Code(err) != codes.NotFound {
		t.Errorf("why of nothing: %v", err)
	}
	first := p.ana.action(t, "cat in > out")
	p.ana.executedFor(t, "//app:it", first)
	ran := p.ana.why(t, "app:it")
	if e := ran.Entry; e.Cache.Verdict != journalv1.Cache_VERDICT_MISS || e.Outcome.Worker != "ben" || e.Placing.Class != "fingerprinted" || ran.Before != nil {
		t.Errorf("%v", ran)
	}
	scores := ran.Entry.Placing.GetAttempts()[0].Scores
	if !slices.ContainsFunc(scores, func(s *journalv1.Score) bool { return s.Name == "ana" && s.Refused == "no free slot" }) ||
		!slices.ContainsFunc(scores, func(s *journalv1.Score) bool { return s.Name == "ben" && s.Total > 0 }) {
		t.Errorf("candidates %v", scores)
	}

	p.ana.executedFor(t, "//app:it", p.ana.action(t, "cat in in > out"))
	changed := p.ana.why(t, "@@//app:it")
	if len(changed.Changes) != 1 || changed.Changes[0].Part != "command" || !strings.Contains(changed.Changes[0].New, "in in") || changed.Before.GetSequence() != ran.Entry.Sequence {
		t.Errorf("%v", changed)
	}

	again := p.ana.executedFor(t, "//app:it", first)
	hit := p.ana.why(t, "")
	if hit.Entry.Cache.Verdict != journalv1.Cache_VERDICT_HIT_HERE || !strings.HasPrefix(again.Message, "found here") {
		t.Errorf("%q, %v", again.Message, hit)
	}
	if _, err := repb.NewExecutionClient(p.ana.conn).Execute(about(t, "//app:gpu"), &repb.ExecuteRequest{ActionDigest: p.ana.asking(t, "cat in > out", "Pool=gpu").Proto()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what nobody fulfils is noted", func() bool {
		refused, err := (journalAnswers{node: p.ana.Node}).Why(t.Context(), &controlv1.WhyRequest{Subject: "//app:gpu"})
		return err == nil && refused.Entry.Cache.Verdict == journalv1.Cache_VERDICT_REFUSED && strings.Contains(refused.Entry.Outcome.StatusText, `Pool="gpu" is not offered (offered: default, big)`)
	})
	if _, err := (journalAnswers{node: p.ana.Node}).Why(t.Context(), &controlv1.WhyRequest{Subject: "gpu"}); status.Code(err) != codes.NotFound || !strings.HasSuffix(err.Error(), "did you mean //app:gpu?") {
		t.Errorf("a target by its end: %v", err)
	}

	p.free()
	if _, err := (lendingAnswers{lending: p.ben.lending}).Pause(t.Context(), &controlv1.PauseRequest{Now: true}); err != nil {
		t.Fatal(err)
	}
	p.ana.executedFor(t, "//app:it", p.ana.action(t, "cat in; cat in > out")) // which ana makes herself
	elsewhere := p.ana.why(t, "")
	d, err := digest.ParseString(digest.SHA256, elsewhere.Entry.Action)
	if err != nil || elsewhere.Entry.Outcome.Worker != "ana" {
		t.Fatalf("%v, %v", elsewhere, err)
	}
	eventually(t, "ben finds what ana made", func() bool {
		_, err := repb.NewActionCacheClient(p.ben.conn).GetActionResult(about(t, "//ben:it"), &repb.GetActionResultRequest{ActionDigest: d.Proto()})
		return err == nil
	})
	listed, err := contentAnswers{node: p.ana.Node}.List(t.Context(), &controlv1.ListRequest{Action: first.Hex()})
	if err != nil || len(listed.Results) != 1 || listed.Results[0].Signer != "ben" || listed.Results[0].About != "Genrule //app:it" {
		t.Errorf("listed %v, %v", listed, err)
	}
	if _, err := p.ana.result(t, first); err != nil { // of which its client says nothing
		t.Fatal(err)
	}
	if e := p.ana.why(t, "").Entry; e.Mnemonic != "Genrule" || e.Target != "//app:it" || e.Cache.Verdict != journalv1.Cache_VERDICT_HIT_HERE {
		t.Errorf("a look-up without a word: %v", e)
	}
	if e := p.ben.why(t, "//ben:it").Entry; e.Cache.Verdict != journalv1.Cache_VERDICT_HIT_MEMBER || e.Cache.From != "ana" || e.Output != "out" {
		t.Errorf("%v", e)
	}
}

// TestInsteadOf: who asks for a target that is not known is told of those that are like it.
func TestInsteadOf(t *testing.T) {
	targets := []string{"//app:grep_test", "//app:grep", "//lib:grep", "//tool:grep", "//lib:sed"}
	for subject, want := range map[string]string{
		"grep":      "did you mean //app:grep_test or //app:grep or //lib:grep?",
		"//lib:set": "did you mean //lib:sed?",
		"ffff":      "the last action is shown by: buildmesh why --last",
	} {
		if got := insteadOf(subject, targets); got != want {
			t.Errorf("%q: %q, want %q", subject, got, want)
		}
	}
}
