package fed

import _ "embed"

// Workflow is the reference workflow in the organisations of a test federation: upload and approval at org-a,
// classification and detection of personal data at org-b, review at org-c.
//
//go:embed testdata/workflow.yaml
var Workflow string

// ApproveAll is a node.yaml agents section whose approval rule always holds.
const ApproveAll = "agents:\n  approval-agent: {kind: approval, automatic: 'true'}\n"

// Lease is a document with personal data in it.
const Lease = `LEASE AGREEMENT

This lease is made on 3 March 2026 between Harbour Estates Ltd, the landlord, and Miriam Castellane, the tenant, born on
14 July 1984, e-mail miriam.castellane@example.org, telephone +49 30 901820.

1. Premises. The landlord lets to the tenant the flat at 12 Quay Street, second floor, for residential use only.
2. Term. The tenancy begins on 1 April 2026 and runs for twenty-four months.
3. Rent. The tenant shall pay a rent of 1,240 euros a month in advance, to IBAN DE89 3704 0044 0532 0130 00.
4. Deposit. The tenant shall pay a deposit of three months' rent, which the landlord keeps apart and returns with interest.
5. Repairs. The landlord keeps the structure in repair; the tenant keeps the inside clean and reports damage at once.
6. Notice. Either party may end the tenancy with three months' notice in writing after the first year.

Signed: Harbour Estates Ltd, Miriam Castellane
`
