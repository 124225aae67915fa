# Figures about speed, to read and to compare; nothing fails because of them. BENCHFLAGS are the
# program's own: BENCHFLAGS="--rounds 1 --scenarios budget --output json".

.PHONY: bench
bench: build ## compare Fairway's drain with kubectl's and with the least possible, count history events, measure idle workers, updates without change and promotions (1 h)
	@go build -o bin/bench ./bench
	@bin/bench $(BENCHFLAGS)
