package server

// Execute changes the database behind the store's back.
func Execute(s *Store, statement string) error {
	_, err := s.db.Exec(statement)
	return err
}

// Routes are the methods and paths that a server answers.
func Routes() (out [][2]string) {
	for _, route := range new(Server).routes() {
		out = append(out, [2]string{route.method, route.path})
	}
	return out
}

// Description is openapi.yaml.
func Description() []byte { return description }
