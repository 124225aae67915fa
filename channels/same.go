package channels

import (
	"context"
	"strings"
)

// Same says whether two commits have the same content.
func (m *Mirror) Same(ctx context.Context, a, b string) (same bool, err error) {
	err = m.on(ctx, []string{a, b}, func(dir string) error {
		answer, err := m.git(ctx, dir, "rev-parse", a+"^{tree}", b+"^{tree}")
		trees := strings.Fields(string(answer))
		same = len(trees) == 2 && trees[0] == trees[1]
		return err
	})
	return same, err
}
