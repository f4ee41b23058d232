package member

// Quorum returns how many of n independently operated organisations, witnesses included, carry a decision: 1 of 1, and
// from 2 on ⌊(n+f)/2⌋+1 with f = max(1, ⌊(n−1)/3⌋) faulty members tolerated (ARCHITECTURE §3).
func Quorum(n int) int {
	if n <= 1 {
		return 1
	}
	return (n+tolerated(n))/2 + 1
}

// QuorumAbout returns how many of the other n−1 members carry a decision about one of n.
func QuorumAbout(n int) int { return (n-1+tolerated(n))/2 + 1 }

func tolerated(n int) int { return max(1, (n-1)/3) }
