package workflows

// All are the workflows of this package. What replays histories registers them.
func All() []any {
	return []any{
		UpdateCluster, RollPool, ReplaceNode, Cluster, Fleet, // clusters
		Channel, Sync, WatchHealth, ConsiderPromotion, Promote, // channels
		TestPullRequest, TestQueue, ConsiderTests, RunTest, Sweep, // test clusters
	}
}
