# The lab: everything outside of Fairway, for real, on this machine.

.PHONY: lab lab-down lab-status

.lab/bin/lab: FORCE
	@test -x $@ || echo "building the lab's own command: up to 3 min if nothing is cached"
	@go build -o $@ ./lab/cmd/lab

.PHONY: FORCE
FORCE:

lab: .lab/bin/lab ## build and start the lab, and leave it running
	@.lab/bin/lab up --detach

lab-down: .lab/bin/lab ## stop the lab
	@.lab/bin/lab down

lab-status: .lab/bin/lab ## show what runs and where
	@.lab/bin/lab status
