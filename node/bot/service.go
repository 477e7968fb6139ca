package bot

import (
	"context"
	"fmt"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/exec/bot"
	"github.com/buildmesh/buildmesh/node/reapi"
	botspb "github.com/buildmesh/buildmesh/proto/remoteworkers/v1test2"
)

// Bounds of what a bot says.
const (
	maxID         = 256
	maxProperties = 1024
	maxLeases     = 4 * bot.MaxCapacity
)

// Service is the Bots service.
type Service struct {
	botspb.UnimplementedBotsServer
	bots *bot.Bots
}

// Register adds the service to a server.
func Register(to grpc.ServiceRegistrar, bots *bot.Bots) {
	botspb.RegisterBotsServer(to, &Service{bots: bots})
}

// CreateBotSession begins a session.
func (s *Service) CreateBotSession(_ context.Context, q *botspb.CreateBotSessionRequest) (*botspb.BotSession, error) {
	b, _, err := read(q.BotSession)
	if err != nil {
		return nil, reapi.Status(err)
	}
	answer, err := s.bots.Open(b)
	if err != nil {
		return nil, reapi.Status(err)
	}
	return write(q.BotSession, answer), nil
}

// UpdateBotSession hears a bot out and waits until there is something to tell it.
func (s *Service) UpdateBotSession(ctx context.Context, q *botspb.UpdateBotSessionRequest) (*botspb.BotSession, error) {
	if q.Name == "" || len(q.Name) > maxID {
		return nil, reapi.Status(&reapi.FieldError{Field: "name", Reason: "is empty or too long"})
	}
	b, reports, err := read(q.BotSession)
	if err != nil {
		return nil, reapi.Status(err)
	}
	answer, err := s.bots.Update(ctx, q.Name, b, reports)
	if err != nil {
		return nil, reapi.Status(err)
	}
	return write(q.BotSession, answer), nil
}

// read takes what counts out of a session.
func read(m *botspb.BotSession) (bot.Bot, []bot.Report, error) {
	b := bot.Bot{ID: m.GetBotId(), Capacity: 1}
	if b.ID == "" || len(b.ID) > maxID {
		return b, nil, &reapi.FieldError{Field: "bot_session.bot_id", Reason: "is empty or too long"}
	}
	if len(m.Leases) > maxLeases {
		return b, nil, &reapi.FieldError{Field: "bot_session.leases", Reason: "are too many"}
	}
	switch m.Status {
	case botspb.BotStatus_BOT_STATUS_UNSPECIFIED, botspb.BotStatus_OK:
		b.Status = bot.Ready
	case botspb.BotStatus_BOT_TERMINATING:
		b.Status = bot.Leaving
	default:
		b.Status = bot.Paused
	}
	if err := configure(&b, m.GetWorker().GetConfigs()); err != nil {
		return b, nil, err
	}
	b.Properties = properties(m.GetWorker())
	if len(b.Properties) > maxProperties {
		return b, nil, &reapi.FieldError{Field: "bot_session.worker", Reason: "has too many properties"}
	}
	reports := make([]bot.Report, 0, len(m.Leases))
	for _, l := range m.Leases {
		if l.GetId() == "" || len(l.GetId()) > maxID {
			return b, nil, &reapi.FieldError{Field: "bot_session.leases.id", Reason: "is empty or too long"}
		}
		reports = append(reports, bot.Report{
			ID: l.Id, State: bot.State(l.State), Result: l.Result, Code: l.GetStatus().GetCode(), Message: l.GetStatus().GetMessage(),
		})
	}
	return b, reports, nil
}

// configure takes over capacity and priority; other configs say nothing to us.
func configure(b *bot.Bot, configs []*botspb.Worker_Config) error {
	for _, c := range configs {
		if c.GetKey() != "capacity" && c.GetKey() != "priority" {
			continue
		}
		n, err := strconv.ParseInt(c.GetValue(), 10, 32)
		if err != nil {
			return &reapi.FieldError{Field: "bot_session.worker.configs", Reason: fmt.Sprintf("%s is no number", c.GetKey())}
		}
		if c.GetKey() == "priority" {
			b.Priority = int(n)
		} else {
			b.Capacity = max(1, min(int(n), bot.MaxCapacity))
		}
	}
	return nil
}

// properties are those of the worker, else those of its first device, which say the same where both stand.
func properties(w *botspb.Worker) []bot.Property {
	var list []bot.Property
	for _, p := range w.GetProperties() {
		list = append(list, bot.Property{Name: p.GetKey(), Value: p.GetValue()})
	}
	if len(list) > 0 || len(w.GetDevices()) == 0 {
		return list
	}
	for _, p := range w.GetDevices()[0].GetProperties() {
		list = append(list, bot.Property{Name: p.GetKey(), Value: p.GetValue()})
	}
	return list
}

// write makes the answer to what a bot said.
func write(said *botspb.BotSession, a bot.Answer) *botspb.BotSession {
	m := &botspb.BotSession{
		Name: a.Session, BotId: said.BotId, Status: said.Status, Worker: said.Worker, Version: said.Version,
		ExpireTime: timestamppb.New(a.Expires),
	}
	for _, l := range a.Leases {
		m.Leases = append(m.Leases, &botspb.Lease{Id: l.ID, State: botspb.LeaseState(l.State), Payload: l.Payload})
	}
	return m
}
