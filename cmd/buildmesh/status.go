package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/buildmesh/buildmesh/node/human"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// statusVerb is `buildmesh status`.
type statusVerb struct {
	JSON bool `name:"json" help:"Print one JSON object, for programs."`
}

// Run prints what the node is and does.
func (s *statusVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Status(v.ctx, &controlv1.StatusRequest{})
	if err != nil {
		return plain(err)
	}
	if s.JSON {
		text, err := protojson.MarshalOptions{Multiline: true, EmitUnpopulated: true, UseProtoNames: true}.Marshal(answer)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(v.out, "%s\n", text)
		return err
	}
	return v.table(statusRows(answer), flightRows(answer.Flights), problemRows(answer.Mesh.GetProblems()))
}

// table prints blocks of rows, the columns of each aligned, an empty line between blocks.
func (v *verbContext) table(blocks ...[]string) error {
	for i, rows := range blocks {
		if len(rows) == 0 {
			continue
		}
		if i > 0 {
			fmt.Fprintln(v.out)
		}
		table := tabwriter.NewWriter(v.out, 0, 0, 2, ' ', 0)
		for _, row := range rows {
			fmt.Fprintln(table, row)
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// statusRows is a status in lines of label and value.
func statusRows(s *controlv1.StatusResponse) []string {
	state := "up " + human.Age(time.Since(s.Started.AsTime()))
	if s.Draining {
		state = "draining"
	}
	rows := []string{
		fmt.Sprintf("node\t%s, %s, pid %d, %s of memory", s.Name, state, s.Pid, human.Bytes(s.MemoryBytes)),
		"peer\t" + s.PeerId,
		"version\t" + s.Version,
	}
	for _, e := range []struct{ label, scheme, address string }{
		{"endpoint", "grpc://", s.GrpcAddress}, {"socket", "unix:", s.GrpcSocket}, {"web", "http://", s.WebAddress},
	} {
		if e.address != "" {
			rows = append(rows, e.label+"\t"+e.scheme+e.address)
		}
	}
	if s.Mesh != nil {
		rows = append(rows, "mesh\t"+meshText(s.Mesh))
	}
	rows = append(rows, "sandbox\t"+sandboxText(s.Sandbox))
	rows = append(rows, storeRows(s.Store, s.Results)...)
	if s.Sandbox.GetTier() == "" {
		return rows
	}
	return append(rows,
		"lending\t"+lendingText(s.Lending),
		fmt.Sprintf("slots\t%s of %s cores, %s of %s memory taken; %s running, %s queued",
			human.Cores(s.Slots.GetCoresBusy()), human.Cores(s.Slots.GetCores()),
			human.Bytes(s.Slots.GetMemoryBusyBytes()), human.Bytes(s.Slots.GetMemoryBytes()),
			human.Count(s.Slots.GetRunning()), human.Count(s.Slots.GetQueued())),
		fmt.Sprintf("actions\t%s succeeded, %s failed, %s from the cache, %s merged with a member's, %s cancelled, %s faults",
			human.Count(s.Actions.GetSucceeded()), human.Count(s.Actions.GetFailed()), human.Count(s.Actions.GetCached()),
			human.Count(s.Actions.GetMerged()), human.Count(s.Actions.GetCancelled()), human.Count(s.Actions.GetFaults())))
}

// meshText is the mesh in a few words.
func meshText(m *controlv1.MeshStatus) string {
	others := m.Alive + m.Suspect + m.Dead
	if others == 0 {
		return m.Name + ", this node alone; bring another in with: buildmesh invite"
	}
	text := fmt.Sprintf("%s, %s of %s other members up", m.Name, human.Count(m.Alive), human.Count(others))
	if m.Suspect > 0 {
		text += fmt.Sprintf(", %s suspect", human.Count(m.Suspect))
	}
	if m.Compared > 0 {
		text += fmt.Sprintf("; %s of %s results made twice differed", human.Count(m.Disputed), human.Count(m.Compared))
	}
	return text
}

// sandboxText says how actions are isolated.
func sandboxText(s *controlv1.Sandbox) string {
	switch s.GetTier() {
	case "":
		return "none: this node runs no actions"
	case "A":
		return "tier A, full isolation; control groups " + s.Groups
	case "B":
		return "tier B, through bubblewrap; control groups " + s.Groups
	case "C":
		return "tier C, own actions only; control groups " + s.Groups
	default:
		return "tier " + s.Tier + ", no action can be run; buildmesh doctor tells why"
	}
}

// storeRows is the store and the action results in lines of label and value.
func storeRows(s *controlv1.Store, r *controlv1.Results) []string {
	store := fmt.Sprintf("store\t%s blobs, %s of %s (%s); %s of disk free", human.Count(s.GetBlobs()), human.Bytes(s.GetBytes()),
		human.Bytes(s.GetMaxBytes()), human.Percent(s.GetBytes(), s.GetMaxBytes()), human.Bytes(s.GetDiskFreeBytes()))
	if s.GetCorrupt() > 0 {
		store += fmt.Sprintf("; %s CORRUPT, moved aside", human.Count(s.GetCorrupt()))
	}
	asked := r.GetHits() + r.GetMisses()
	results := fmt.Sprintf("results\t%s kept, %s of %s; %s hits of %s look-ups (%s)", human.Count(r.GetEntries()), human.Bytes(r.GetBytes()),
		human.Bytes(r.GetMaxBytes()), human.Count(r.GetHits()), human.Count(asked), human.Percent(r.GetHits(), asked))
	if r.GetFound() > 0 {
		results += fmt.Sprintf(", %s more found in the mesh", human.Count(r.GetFound()))
	}
	return []string{store, results}
}

// flightRows lists executions under way.
func flightRows(flights []*controlv1.Flight) []string {
	if len(flights) == 0 {
		return nil
	}
	rows := []string{"STAGE\tAGE\tON\tMNEMONIC\tTARGET"}
	for _, f := range flights {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", f.Stage, human.Age(f.Age.AsDuration()), dash(clean(f.Worker)), dash(clean(f.Mnemonic)), dash(clean(f.Target+f.Words))))
	}
	return rows
}

// dash stands for what is not known.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
