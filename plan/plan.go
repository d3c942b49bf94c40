// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package plan finds what to send to CloudFront for a selection: the least
// number of items that cover every selected entry and touch no other, or what is
// best within budgets of collateral, items and wildcards, with the reason of each, the
// price, the time it takes, and what it cannot cover. docs/planner.md has the derivation.
//
// [Compute] reads the inventory in path order, selected or not; without percentages and
// native tags mostly once. Its memory grows with the length of paths, the budgets and the
// answer, not with the inventory.
//
// The paths are a trie, in which a wildcard is a subtree and a path is a leaf. The
// optimum without collateral is the set of maximal subtrees that hold only selected
// entries: one exact path where there is one entry, else one wildcard. Of the
// stems that name the same subtree, the first of these decides: AWS confirms that
// the wildcard reaches all of it (see cfpath.Item.MatchesSurely); "/dir/" has not
// to be sent beside "/dir/*"; it ends in '/' or '?', or else in one of . - _ = &
// ("/*" counts as none of these: it reaches what nobody tracks); it is the longest,
// so that it reaches no further than it must.
//
// A subtree without a stem that can be sent is covered by what is below it. What
// nothing covers is in [Plan.Uncovered], with the wildcard that would.
package plan

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// Options say how to plan. The zero value plans exact paths.
type Options struct {
	// Named items go out as they are, sighted or not. Those that another named
	// item surely covers are left out.
	Named []cfpath.Item
	// OnlySeen leaves out named items that reach no entry.
	OnlySeen bool
	// Exact sends every selected entry by itself, where no named item reaches it.
	Exact bool
	// Wildcards may be used beyond the named: the inventory is complete.
	Wildcards bool
	// Scope are the path patterns of what recorders see, as in a cache behaviour.
	// Beyond the named, a wildcard is used only if it lies wholly in one of them. None is all.
	Scope []string
	// RootObject is the distribution's default root object, as "index.html". CloudFront
	// may hold it under either path, with any query, so both are sent, whatever the budgets:
	// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DefaultRootObject.html.
	RootObject string
	// Doubtful tells of paths, beyond cfpath.InDoubt, whose query AWS does not
	// confirm to be spelled as the item must be. It may be nil.
	Doubtful func(path string) bool

	// MaxCollateral is how many entries that nobody selected the looked-up items may
	// reach together. Nil is none, or any number where MaxItems is set.
	MaxCollateral *Budget
	// MaxItems is how many items there may be, the named ones included. With it the plan
	// is that of the least collateral; with MaxCollateral too, that of the fewest items.
	MaxItems *int
	// MaxWildcards is how many of the items may be wildcards.
	MaxWildcards *int
	// MaxPrice is what the plan may cost in US dollars, by Price: a cap on items which,
	// unlike MaxItems, does not by itself allow collateral.
	MaxPrice *float64

	// NativeTags says that the distribution has cache tags, so that "#tag" is an item:
	// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/invalidation-by-tags.html.
	// They are looked up only with Wildcards, since a tag too reaches what nobody tracked.
	NativeTags bool

	// Explain are canonical paths to say of what the plan does to them.
	Explain []string
	// Compare adds what other budgets and simpler ways would cost: see [Plan.Frontier].
	Compare bool

	Price  PriceModel
	Limits Limits
}

// An Input is one entry of the inventory.
type Input struct {
	Entry    *inventory.Entry // looked at until the next is asked for
	Selected bool
	// Named says of a folded entry that everything selected of it is reached by
	// Options.Named. Otherwise it is covered as a whole. It means nothing for others.
	Named bool
	// InFlight says of a selected entry that an item on its way reaches it, and that it was
	// not sighted since: it needs no item, and is nobody's collateral.
	InFlight bool
}

// partly tells whether what is not named of a folded entry is not selected.
func (in *Input) partly() bool { return in.Selected && in.Entry.Folded && in.Named }

// A Plan is what to send and why. Its slices are never nil.
type Plan struct {
	Items     []Item      `json:"items"` // named ones as given, then the others in byte order
	Totals    Totals      `json:"totals"`
	Uncovered []Uncovered `json:"uncovered"`
	Warnings  []Warning   `json:"warnings"`
	// Alternatives are other ways to the same end, to compare with.
	Alternatives []Alternative `json:"alternatives"`
	// Feasible tells whether the plan keeps to every budget. If it does not, it is the plan
	// of the fewest items within the other budgets, and a warning says so.
	Feasible bool  `json:"feasible"`
	Bound    Bound `json:"bound"`
	// Explanations are in the order of Options.Explain.
	Explanations []Explanation `json:"explanations,omitempty"`
	// Frontier is the least collateral for ever more items, with Options.Compare. It is
	// thinned: where it goes from 20 to 25 items, nothing between is better by much.
	Frontier []Point `json:"frontier,omitempty"`
}

// A Bound is how good a plan is known to be: no plan within the budgets has a
// smaller value than Lower.
type Bound struct {
	Objective string `json:"objective"` // one of the Objective constants
	Lower     int    `json:"lower"`
	Value     int    `json:"value"`
	Gap       int    `json:"gap"`     // Value - Lower
	Optimal   bool   `json:"optimal"` // nothing within the budgets is better
}

// What a plan has the least of, once as little as can be is uncovered.
const (
	ObjectiveItems      = "items"
	ObjectiveCollateral = "collateral" // with MaxItems and without MaxCollateral
)

// A Point is the least collateral that so many items can have.
type Point struct {
	Items      int     `json:"items"`
	Wildcards  int     `json:"wildcards"`
	Collateral int     `json:"collateral"`
	Price      float64 `json:"price"`
	Seconds    float64 `json:"seconds"`
}

// An Explanation is what a plan does to a path.
type Explanation struct {
	Path     string `json:"path"`
	Status   string `json:"status"` // one of the Status constants
	Item     string `json:"item"`   // that reaches it, or empty
	Sentence string `json:"sentence"`
}

// What a plan does to a path.
const (
	StatusCovered    = "covered"     // selected, and an item reaches it
	StatusInFlight   = "in-flight"   // selected, and an item sent earlier reaches it
	StatusUncovered  = "uncovered"   // selected, and none does
	StatusCollateral = "collateral"  // not selected, and an item reaches it
	StatusLeftAlone  = "left-alone"  // not selected, and none does
	StatusNotSighted = "not-sighted" // no entry; Item is what would reach it all the same
)

// An Item is one billed unit and what it does. In JSON it is flat, with the
// reason's code as "reason" and its sentence as "why".
type Item struct {
	Item       cfpath.Item
	Covers     int // selected entries it reaches
	Collateral int // other entries it reaches
	Reason     Reason
	// Unsure: AWS does not confirm that the item reaches all it should, so its
	// acceptance proves nothing for entries that it does not match surely.
	Unsure bool
}

type itemJSON struct {
	Item       string      `json:"item"`
	Kind       cfpath.Kind `json:"kind"`
	Covers     int         `json:"covers"`
	Collateral int         `json:"collateral"`
	Reason     string      `json:"reason"`
	Why        string      `json:"why,omitempty"`
	Unsure     bool        `json:"unsure,omitempty"`
}

// MarshalJSON implements [json.Marshaler].
func (i Item) MarshalJSON() ([]byte, error) {
	return json.Marshal(itemJSON{i.Item.String(), i.Item.Kind, i.Covers, i.Collateral, i.Reason.Code, i.Reason.Text, i.Unsure})
}

// UnmarshalJSON implements [json.Unmarshaler]. The item must be one that
// CloudFront takes, and of the kind that is said.
func (i *Item) UnmarshalJSON(data []byte) error {
	var j itemJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	it, err := cfpath.ParseItem(j.Item)
	if err != nil {
		return err
	}
	if it.Kind != j.Kind {
		return fmt.Errorf("plan: item %q is of kind %s, not %s: write the kind that it has", j.Item, it.Kind, j.Kind)
	}
	*i = Item{it, j.Covers, j.Collateral, Reason{j.Reason, j.Why}, j.Unsure}
	return nil
}

// A Reason is why an item is in a plan: a stable code, and a sentence for people.
type Reason struct {
	Code string
	Text string
}

// Codes of reasons.
const (
	ReasonNamed      = "named"            // the user named it
	ReasonExact      = "exact"            // the one selected entry of its subtree
	ReasonBelow      = "all-below"        // everything below is selected
	ReasonEverything = "everything"       // all that is tracked is selected
	ReasonDirectory  = "directory-itself" // "/dir/", which "/dir/*" may leave alone
	ReasonFolded     = "folded"           // an entry that stands for all that begins with it
	ReasonTrouble    = "unnameable"       // no exact item can name what it covers
	ReasonDoubt      = "in-doubt"         // ends before a spelling that is in doubt
	ReasonRoot       = "root-object"      // the other path of the default root object
	ReasonBudget     = "within-budget"    // not all below is selected, but the budgets allow it
	ReasonTag        = "tag"              // all that carries the tag is selected, or the budgets allow it
	ReasonFixed      = "fixed"            // a plan file has it
)

// Totals sum a plan up.
type Totals struct {
	Entries    int     `json:"entries"`
	Selected   int     `json:"selected"`
	Items      int     `json:"items"`
	Paths      int     `json:"paths"`
	Wildcards  int     `json:"wildcards"`
	Tags       int     `json:"tags"`
	Collateral int     `json:"collateral"` // entries reached and not selected, each once
	Uncovered  int     `json:"uncovered"`  // selected entries that no item reaches
	InFlight   int     `json:"in_flight"`  // selected entries that need none: see [Input.InFlight]
	Price      float64 `json:"price"`      // US dollars, at most
	Seconds    float64 `json:"seconds"`    // to send all and to see it completed
}

// Send counts items by their kinds, with what they cost and how long they take.
func (t *Totals) Send(items []Item, price PriceModel, limits Limits) {
	t.Items, t.Paths, t.Wildcards, t.Tags = len(items), 0, 0, 0
	for i := range items {
		switch items[i].Item.Kind {
		case cfpath.Path:
			t.Paths++
		case cfpath.Wildcard:
			t.Wildcards++
		case cfpath.Tag:
			t.Tags++
		}
	}
	t.Price, t.Seconds = price.Of(t.Items), limits.Seconds(t.Paths+t.Tags, t.Wildcards)
}

// Naive are the two ways that need no inventory in order: every selected path by
// itself, and everything.
func (t *Totals) Naive(price PriceModel, limits Limits) []Alternative {
	return []Alternative{alternative(EveryPath, t.Selected, 0, 0, price, limits),
		alternative(Everything, 0, 1, t.Entries-t.Selected, price, limits)}
}

func alternative(name string, others, wildcards, collateral int, price PriceModel, limits Limits) Alternative {
	return Alternative{name, others + wildcards, collateral, price.Of(others + wildcards), limits.Seconds(others, wildcards)}
}

// Uncovered is a selected entry that no item of the plan reaches.
type Uncovered struct {
	Path   string `json:"path"`
	Reason string `json:"reason"` // a code of cfpath.Trouble, or ReasonMaxWildcards
	// Remedy is the item that would cover it, empty if there is none.
	Remedy string `json:"remedy"`
	// RemedyCollateral is how many entries the remedy would reach that are not selected.
	RemedyCollateral int `json:"remedy_collateral"`
}

// ReasonMaxWildcards is why a folded entry is uncovered when Options.MaxWildcards leaves
// no wildcard for it.
const ReasonMaxWildcards = "max-wildcards"

// A Warning is something to know before sending: a stable code, and a sentence
// that says what to do.
type Warning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Codes of warnings.
const (
	WarnNothing    = "nothing-selected"
	WarnNotSighted = "not-sighted"
	WarnIncomplete = "incomplete-coverage"
	WarnUncovered  = "uncovered"
	WarnDoubt      = "spelling-in-doubt"
	WarnCollateral = "collateral"
	WarnSlow       = "slow"
	WarnOverBudget = "over-budget" // no plan keeps to the budgets
	WarnBound      = "not-proven"  // a better plan may exist: see [Bound]
	WarnTags       = "tags-left-out"
)

// An Alternative is another way to cover the selection.
type Alternative struct {
	Name       string  `json:"name"`
	Items      int     `json:"items"`
	Collateral int     `json:"collateral"`
	Price      float64 `json:"price"`
	Seconds    float64 `json:"seconds"`
}

// Names of alternatives.
const (
	EveryPath    = "every-path"    // each selected entry by itself
	Everything   = "everything"    // "/*"
	WithComplete = "with-complete" // this selection, were the inventory complete

	// With Options.Compare, what tools do that know only what changed:
	CommonPrefix     = "common-prefix"     // one wildcard after what all that is selected begins with
	WholeDirectories = "whole-directories" // "dir/*" where two or more pages of a directory are selected
)

// A PriceModel says what items cost, each the same, whatever its kind
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/PayingForInvalidation.html).
type PriceModel struct {
	FreePaths int     // items that are free yet this month
	PerPath   float64 // US dollars; 0 is the documented 0.005
}

// Of returns the price of n items in US dollars.
func (m PriceModel) Of(n int) float64 {
	return math.Round(float64(max(0, n-max(0, m.FreePaths)))*m.perPath()*1e6) / 1e6
}

func (m PriceModel) perPath() float64 {
	if m.PerPath == 0 {
		return 0.005
	}
	return m.PerPath
}

// Items is how many items such a price pays for.
func (m PriceModel) Items(price float64) int {
	n := math.Floor(price/m.perPath() + 1e-6) // 0.015 pays for 3
	return int(min(n, math.MaxInt32)) + max(0, m.FreePaths)
}

// Limits are what CloudFront accepts and how long it takes. A zero field is the
// default: 150 paths or tags and one wildcard a second
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html);
// 3,000 paths or tags and 15 wildcards in progress, the quotas before those
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/InvalidationLimits.html); two calls of the
// API a second, for which AWS states no quota; and 25 s to complete, which AWS announced
// for 95 of 100. Wildcards count among the items of a second as well, since AWS does
// not say that they do not.
type Limits struct {
	ItemsPerSecond     float64
	WildcardsPerSecond float64
	CallsPerSecond     float64
	// Burst is how many seconds' worth of either rate may go out at once, and so
	// how much a request may hold; default 1.
	Burst float64
	// ItemsInProgress and WildcardsInProgress are the quotas for a distribution;
	// negative: there is none.
	ItemsInProgress, WildcardsInProgress int
	CompletionSeconds                    float64
}

// WithDefaults returns the limits with nothing left zero.
func (l Limits) WithDefaults() Limits {
	set := func(v *float64, d float64) {
		if !(*v > 0) {
			*v = d
		}
	}
	set(&l.ItemsPerSecond, 150)
	set(&l.WildcardsPerSecond, 1)
	set(&l.CallsPerSecond, 2)
	set(&l.Burst, 1)
	set(&l.CompletionSeconds, 25)
	if l.ItemsInProgress == 0 {
		l.ItemsInProgress = 3000
	}
	if l.WildcardsInProgress == 0 {
		l.WildcardsInProgress = 15
	}
	return l
}

// leftToPeople is how many wildcards in progress are not for programs: of the
// fifteen there were, somebody at the console wants some.
const leftToPeople = 2

// Windows returns how many items other than wildcards, and how many wildcards, may
// be in progress; MaxInt where there is no limit.
func (l Limits) Windows() (others, wildcards int) {
	l = l.WithDefaults()
	others, wildcards = l.ItemsInProgress, l.WildcardsInProgress
	if wildcards > leftToPeople {
		wildcards -= leftToPeople
	}
	if others < 0 {
		others = math.MaxInt
	}
	if wildcards < 0 {
		wildcards = math.MaxInt
	}
	return others, wildcards
}

// Seconds is how long so many items take: until the last is sent, and then until
// it completes. The first second's worth goes out at once. Where what may be in
// progress is the narrower limit, each window's worth waits for the one before it to
// complete.
func (l Limits) Seconds(others, wildcards int) float64 {
	if others <= 0 && wildcards <= 0 {
		return 0
	}
	l = l.WithDefaults()
	o, w := l.Windows()
	send := max(l.sending(others, l.ItemsPerSecond, o), l.sending(wildcards, l.WildcardsPerSecond, w))
	if others > 0 && wildcards > 0 { // wildcards count in both rates
		send = max(send, l.sending(others+wildcards, l.ItemsPerSecond, math.MaxInt))
	}
	return math.Round((send+l.CompletionSeconds)*1e3) / 1e3
}

// sending is how long it takes until the last of n is sent. They go out in requests
// of what the burst holds.
func (l Limits) sending(n int, rate float64, window int) float64 {
	if n <= 0 {
		return 0
	}
	request := max(1, int(rate*l.Burst))
	at := func(n int) float64 { return float64(max(0, n-request)) / rate }
	rounds := (n - 1) / window
	return max(at(n), float64(rounds)*l.CompletionSeconds+at(n-rounds*window))
}
