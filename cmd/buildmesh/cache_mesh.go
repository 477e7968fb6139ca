package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/node/human"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// cacheLsVerb is `buildmesh cache ls`.
type cacheLsVerb struct {
	Action string `arg:"" optional:"" help:"Beginning of the hash of the actions wanted."`
	Limit  int    `default:"100" help:"How many at most (${default})."`
}

// Run lists signed results.
func (c *cacheLsVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Content.List(v.ctx, &controlv1.ListRequest{Action: c.Action, Limit: int64(c.Limit)})
	if err != nil {
		return plain(err)
	}
	if len(answer.Results) == 0 && c.Action != "" {
		return fmt.Errorf("no signed result known here is of an action whose hash begins with %s; the actions of a target are shown by: buildmesh why TARGET", c.Action)
	}
	if len(answer.Results) == 0 {
		_, err := fmt.Fprintln(v.out, "no signed results are known here")
		return err
	}
	return v.table(signedRows(answer, time.Now()))
}

// signedRows list signed results.
func signedRows(answer *controlv1.ListResponse, now time.Time) []string {
	rows := []string{"ACTION\tSIGNER\tAGE\tOUTPUTS\tHERE\tALSO AT\tTARGET"}
	for _, r := range answer.Results {
		here := "no"
		if r.Complete {
			here = "yes"
		}
		rows = append(rows, fmt.Sprintf("%.16s\t%s\t%s\t%d\t%s\t%s\t%s", r.Action, clean(r.Signer), human.Age(now.Sub(r.Completed.AsTime())), r.Outputs, here,
			dash(clean(listed(r.Providers, 3))), dash(clean(r.About))))
	}
	if answer.More > 0 {
		rows = append(rows, fmt.Sprintf("and %s more; see them with --limit", human.Count(answer.More)))
	}
	return rows
}

// cacheDisputesVerb is `buildmesh cache disputes`.
type cacheDisputesVerb struct {
	Absolve string `placeholder:"ACTION" help:"Forget what was signed about the action whose hash begins so; it is run anew."`
}

// Run lists actions about whose results members disagree, or ends a dispute.
func (c *cacheDisputesVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	if c.Absolve != "" {
		answer, err := client.Content.Absolve(v.ctx, &controlv1.AbsolveRequest{Action: c.Absolve})
		if err != nil {
			return plain(err)
		}
		if answer.Absolved == 0 {
			return fmt.Errorf("no dispute is about an action whose hash begins with %s; see: buildmesh cache disputes", c.Absolve)
		}
		_, err = fmt.Fprintf(v.out, "disputes ended: %d\n", answer.Absolved)
		return err
	}
	answer, err := client.Content.Disputes(v.ctx, &controlv1.DisputesRequest{})
	if err != nil {
		return plain(err)
	}
	if len(answer.Disputes) == 0 {
		_, err := fmt.Fprintln(v.out, "no two members disagree about a result")
		return err
	}
	rows := []string{"ACTION\tRAN BY\tAGE\tNOT THE SAME"}
	for _, d := range answer.Disputes {
		for _, one := range d.Claims {
			rows = append(rows, fmt.Sprintf("%.16s\t%s\t%s\t%s", d.Action, one.Signer, human.Age(time.Since(one.Completed.AsTime())), listed(d.Outputs, 3)))
		}
	}
	if err := v.table(rows); err != nil {
		return err
	}
	_, err = fmt.Fprintln(v.out, "\nAn action that is not deterministic looks the same as a member that lies. End a dispute with: buildmesh cache disputes --absolve ACTION")
	return err
}

// cachePinVerb is `buildmesh cache pin`.
type cachePinVerb struct {
	What string `arg:"" help:"A Bazel target //PACKAGE:NAME, a BuildStream artifact PROJECT/ELEMENT/KEY, or a tree HASH/SIZE."`
}

// Run keeps something from eviction.
func (c *cachePinVerb) Run(v *verbContext) error {
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Content.Pin(v.ctx, &controlv1.PinRequest{Name: c.What})
	if err != nil {
		return plain(err)
	}
	text := answer.Root + " is kept"
	if len(answer.Signers) > 0 {
		text += "; made by " + strings.Join(answer.Signers, ", ")
	}
	if len(answer.Providers) > 0 {
		text += "; also at " + strings.Join(answer.Providers, ", ")
	}
	_, err = fmt.Fprintln(v.out, text)
	return err
}

// listed names at most so many of several.
func listed(all []string, most int) string {
	if len(all) <= most {
		return dash(strings.Join(all, ", "))
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}

// sharingRows tell who signed the results known here and who else has them; none where nothing is shared.
func sharingRows(s *controlv1.SharingResponse) []string {
	if s.GetResults() == 0 {
		return nil
	}
	var signers, providers []string
	for _, m := range s.Members {
		if m.Signed > 0 {
			signers = append(signers, m.Name+" "+human.Count(m.Signed))
		}
		if m.Provided > 0 {
			providers = append(providers, m.Name+" "+human.Count(m.Provided))
		}
	}
	return []string{
		fmt.Sprintf("shared\t%s signed results, %s of them only here (buildmesh cache ls)", human.Count(s.Results), human.Count(s.Alone)),
		"signed by\t" + listed(signers, 8),
		"also at\t" + listed(providers, 8),
	}
}
