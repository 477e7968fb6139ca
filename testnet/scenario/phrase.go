package scenario

import (
	"slices"
	"strings"
)

// Phrase is a form of sentence. Words in capitals stand for what differs:
//
//	NAME      one node
//	NAMES     one or more nodes, with spaces between
//	GROUPS    nodes with | between the groups
//	DURATION  like 10s or 250ms
//	ADDRESS   of the network, like 10.77.0.9
//	STATE     how a peer is seen: alive, suspect, dead, left, absent
//	WORD      any word
//	TEXT      the rest of the line
//
// Words with / between are alternatives.
type Phrase string

// The phrases.
const (
	Nodes         Phrase = "node/nodes NAMES"
	NodeAt        Phrase = "node NAME at ADDRESS"
	NodesWith     Phrase = "node/nodes NAMES with TEXT"
	Mesh          Phrase = "mesh NAMES"
	Start         Phrase = "start NAMES"
	Stop          Phrase = "stop NAMES"
	Kill          Phrase = "kill NAMES"
	Sleep         Phrase = "sleep NAMES"
	Wake          Phrase = "wake NAMES"
	Unplug        Phrase = "unplug NAMES"
	Plug          Phrase = "plug NAMES"
	Move          Phrase = "move NAME to ADDRESS"
	Partition     Phrase = "partition GROUPS"
	Slow          Phrase = "slow DURATION GROUPS"
	Lose          Phrase = "lose NAME -> NAME"
	Heal          Phrase = "heal"
	Join          Phrase = "NAMES joins/join NAME"
	Run           Phrase = "NAME: TEXT"
	Keep          Phrase = "WORD = NAME: TEXT"
	Attack        Phrase = "NAME attacks NAME with TEXT"
	Plays         Phrase = "NAME plays TEXT"
	Build         Phrase = "NAME builds TEXT"
	Begin         Phrase = "NAME begins TEXT"
	WithinBuilds  Phrase = "within DURATION NAME builds TEXT"
	Has           Phrase = "NAME has TEXT"
	Rots          Phrase = "disk of NAME rots TEXT"
	Lacks         Phrase = "NAME lacks TEXT"
	WithinLacks   Phrase = "within DURATION NAME lacks TEXT"
	WithinFinds   Phrase = "within DURATION NAME finds TEXT"
	WithinLeft    Phrase = "within DURATION nothing is left"
	Wait          Phrase = "wait DURATION"
	Note          Phrase = "note NAMES"
	Takes         Phrase = "NAMES takes/take under TEXT"
	AsNoted       Phrase = "within DURATION NAMES is/are as noted"
	Within        Phrase = "within DURATION NAMES sees/see NAMES STATE"
	WithinAll     Phrase = "within DURATION all see each other"
	Throughout    Phrase = "for DURATION NAMES sees/see NAMES STATE"
	WithinPrinted Phrase = "within DURATION NAME: TEXT"
)

// Meaning is one phrase and what it does.
type Meaning struct {
	Phrase  Phrase
	Meaning string
}

// Phrases lists every form of sentence, more special ones before more general ones.
func Phrases() []Meaning {
	return []Meaning{
		{NodeAt, "a machine with that address; no node runs on it yet"},
		{NodesWith, "machines whose nodes have settings, like store.max_size=1GiB"},
		{Nodes, "machines; no node runs on them yet"},
		{Mesh, "machines, nodes started on them, all joined to the first one, until all see and hear each other"},
		{Start, "start the nodes and wait until they answer"},
		{Stop, "end the nodes properly"},
		{Kill, "end the nodes with SIGKILL, as a power cut does"},
		{Sleep, "stop the nodes with SIGSTOP, as a closed lid does"},
		{Wake, "let them go on"},
		{Unplug, "pull their network cables"},
		{Plug, "put the cables back"},
		{Move, "give the machine another address"},
		{Partition, "let no frame pass between the groups; those in none are a group too"},
		{Slow, "delay every frame between the groups, each way"},
		{Lose, "let all vanish that the first sends to the second; the other direction works"},
		{Heal, "end partitions, delays and losses"},
		{Keep, "run a verb of buildmesh on a node and keep the code it prints; $WORD is it from then on"},
		{AsNoted, "the nodes' memory and goroutines come back to about what was noted"},
		{Takes, "the nodes' processes have at no time had so much memory or more, like 150MiB, since they were started"},
		{WithinAll, "all nodes that run come to see each other alive and to hear from each other"},
		{Within, "the first nodes come to see the second ones so; prints what they see"},
		{Throughout, "the first nodes see the second ones so all the time"},
		{WithinPrinted, "run a verb on a node until it succeeds and prints what the transcript says"},
		{Attack, "play an adversary on the first machine against the second"},
		{Plays, "end the node and put an adversary in its seat: a member that means no good; prints what it has to tell"},
		{Build, "have the node build samples, all at once, and print who ran each and whether its bytes are right"},
		{Begin, "have the node build samples and print where each runs, without waiting for the end"},
		{WithinBuilds, "have the node build samples, as long as the sentence says at most, and print the same"},
		{Has, "have the node build samples and print nothing: they must be right, wherever they come from"},
		{Rots, "change a byte of each sample's output in the files of the node's store, as anybody who may write there can"},
		{Lacks, "ask the node for the results of samples: neither it nor its mesh must have one"},
		{WithinLacks, "the same again and again, until a verb on the node prints what the transcript says: lacks one until status | ben"},
		{WithinFinds, "ask the node for the results of samples until they are known to it or its mesh, and print whether the bytes are right"},
		{WithinLeft, "what actions and leases take on the nodes that run comes to nothing: processes, directories, slots, pins"},
		{Wait, "let time pass"},
		{Note, "remember the nodes' memory and goroutines"},
		{Join, "invite with the last node and join with the others"},
		{Run, "run a verb of buildmesh on a node and print what it prints; $ben is the peer id of node ben"},
	}
}

// States are the ways a peer may be seen.
func States() []string { return []string{"alive", "suspect", "dead", "left", "absent"} }

// Everyone is the name that stands for all nodes that run and are awake.
const Everyone = "everyone"

// reserved are words that no node may have for a name.
func reserved(word string) bool {
	if word == Everyone {
		return false
	}
	if slices.Contains(States(), word) {
		return true
	}
	for _, m := range Phrases() {
		for part := range strings.FieldsSeq(string(m.Phrase)) {
			if slices.Contains(strings.Split(part, "/"), word) {
				return true
			}
		}
	}
	return false
}
