#!/bin/sh
# What five organisations would do, each on its own machine, done here by processes on loopback: a key that nobody has,
# two encrypted columns, the sum of their products computed by a third organisation, decrypted by three of the five.
set -eu
cd "$(dirname "$0")"
fednode=${FEDNODE:-fednode}
members="org-a org-b org-c org-d org-e"

# Each organisation makes a signing key and a card. Here without passphrases; give each --passphrase-file in earnest.
for org in $members; do
	"$fednode" he party init "$org/party" --name "$org" --address 127.0.0.1:0 --unprotected
done

# One plans the program, and all get the proposal.
"$fednode" he party propose proposal.json --threshold 3 --program-file program.txt \
	--member org-a/party/party.json --member org-b/party/party.json --member org-c/party/party.json \
	--member org-d/party/party.json --member org-e/party/party.json \
	--column doses=0..12 --column price=50..25000 --rows "$(cat rows.txt)"

# together COMMAND ORGS runs a command for each organisation at the same time, and fails if one fails.
together() {
	pids=""
	for org in $2; do
		$1 "$org" >"$org/log.txt" 2>&1 &
		pids="$pids $!"
	done
	for pid in $pids; do
		wait "$pid" || { cat ./*/log.txt; exit 1; }
	done
}
keygen() { "$fednode" he party keygen "$1/keys" --proposal proposal.json --party "$1/party" --unprotected; }
decrypt() {
	"$fednode" he party decrypt total.enc --keys "$1/keys" --party "$1/party" --with org-a,org-c,org-e --unprotected \
		--from doses.enc --from prices.enc
}

echo "five organisations make a key"
together keygen "$members"

echo "org-a encrypts its doses, org-b its prices, org-c multiplies and adds"
"$fednode" he encrypt org-a/doses.csv --keys org-a/keys --to doses.enc
"$fednode" he encrypt org-b/prices.csv --keys org-b/keys --to prices.enc
"$fednode" he eval doses.enc prices.enc --keys org-c/keys --to total.enc

echo "org-a, org-c and org-e decrypt, each of which computes first what it is asked to decrypt"
together decrypt "org-a org-c org-e"
result=$(tail -n 1 org-e/log.txt)
echo "decrypted by three of five: $result"
echo "computed in the clear:      $(cat expected.txt)"
test "$result" = "$(cat expected.txt)"
