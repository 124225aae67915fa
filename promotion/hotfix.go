package promotion

// Touched is a path that a commit of a later channel has changed, by the ids of its content; an id is
// empty where there is no such file.
type Touched struct {
	Path string
	// Before and After are around the commit, There in the earlier channel as it is now.
	Before, After, There string
	// Now is in the later channel as it is now.
	Now string
}

// Present says whether an earlier channel has what a commit of a later channel has brought: it has the
// same patch, or each file that was touched is there as the commit has left it, or as it is in the later
// channel now, so that nothing is missing any more. A file that is otherwise does not count as present,
// although people may have brought the change there in other words.
func Present(touched []Touched, samePatch bool) bool {
	if samePatch {
		return true
	}
	for _, t := range touched {
		if t.Before != t.After && t.There != t.After && t.There != t.Now {
			return false
		}
	}
	return true
}

// Facts are what is known of a landing from the repository. What its message says is not among them,
// since anybody can write it.
type Facts struct {
	// Fed means that other channels are promoted to the channel.
	Fed bool
	// Merge means that the landing has several parents.
	Merge bool
	// Carried counts what the landing brings, compared with its first parent, of commits that one of those
	// channels has, merges among them. A landing that such a channel has itself is one too.
	Carried int
	// New counts the rest of what it brings, without merges, which resolve conflicts; a landing that is no merge is
	// one too.
	New int
	// Restores means that the landing has a trailer Fairway-Revert-To that names an earlier landing of the
	// channel, and has the tree of that landing.
	Restores bool
	// PullRequest means that the forge knows the landing as what a pull request was merged as, such
	// as one that was squashed.
	PullRequest bool
}

// KindOf says how a landing got onto its channel. The trailer of a promotion counts for nothing: a
// promotion is what carries commits of the channels before. That of a revert counts only where the
// content is indeed that of the landing it names; so forging it makes a revert of what claims to be one.
func KindOf(f Facts) Kind {
	switch {
	case !f.Fed:
		return Changed
	case f.Carried > 0 && f.New == 0:
		return Promoted
	case f.Carried > 0:
		return Mixed
	case f.Restores:
		return Reverted
	case f.PullRequest, f.Merge && f.New > 0:
		return Hotfix
	default:
		return Direct
	}
}
