package trust

import (
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Phrase is four words that two peers of a mesh can compare, each on its own screen: they differ when
// one of them speaks with somebody else. The order of the two does not matter. It is a check for
// people; what admits is the code.
func Phrase(root, a, b peer.ID) string {
	if slices.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	sum := sha256.Sum256(slices.Concat([]byte("buildmesh phrase\x00"), root[:], a[:], b[:]))
	list := strings.Fields(words)
	out := make([]string, 4)
	for i := range out {
		out[i] = list[sum[i]]
	}
	return strings.Join(out, " ")
}

// words are 256 that are short, plain and not mistaken for each other when said aloud.
const words = `
acid acorn actor agent alarm album amber anchor ankle apple apron arrow atlas attic autumn axle
badge bagel bamboo banana banjo barrel basket beacon beetle bench bicycle biscuit blanket blossom bonus border
bottle bracket breeze bridge bronze brush bubble bucket buffalo bullet butter button cabin cactus camel candle
canoe canyon carbon carpet carrot castle cedar cement chalk cherry chicken chimney cinema circus clover cobra
coconut coffee comet compass copper coral cotton cousin crater crayon cricket crystal curtain cushion dagger daisy
dancer denim desert diamond dinner dolphin domino donkey dragon drummer eagle earth easel echo eclipse elbow
elephant ember engine envelope falcon fabric feather fender ferry fiddle finger flamingo forest fossil fountain fox
galaxy garden garlic gecko ginger giraffe glacier glove goblet gorilla granite guitar hammer harbor harvest hazel
helmet hermit honey horizon hotel hunter iceberg igloo indigo iron island ivory jacket jaguar jasmine jelly
jigsaw jungle kayak kettle kingdom kitten koala ladder lagoon lantern laptop lemon leopard library lily lizard
lobster locket lumber magnet mango marble meadow melon mirror monkey mosaic motor muffin museum napkin needle
nickel noodle nugget oasis ocean olive onion opera orbit orchid otter oyster paddle palace panda paper
parrot peanut pebble pelican pencil pepper piano pigeon pillow pirate planet pocket poem pony potato pumpkin
puzzle python quartz queen rabbit radar raven ribbon river robot rocket saddle salmon sandal satin saturn
scarf shadow shovel silver spider squirrel statue sugar sunset tailor temple thunder tiger tomato tractor trumpet
tulip tunnel turtle umbrella valley velvet violin volcano walnut whale window winter wizard yogurt zebra zipper
`
