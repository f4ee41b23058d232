package review

import (
	"slices"
	"strings"

	"fednode/flow/agent/builtin/pii"
)

// A rule looks for one thing in documents of its classes; no classes means all.
type rule struct {
	id      string
	weight  float64
	classes []string
	text    string
	fires   func(*reading) bool
}

// Classes that rules name. Documents of other classes get the rules for all.
const (
	contract = "contract"
	invoice  = "invoice"
	hr       = "hr"
	email    = "email"
	report   = "report"
	medical  = "medical-record"
)

// phrases makes a rule that fires when the text says one of them.
func phrases(list string) func(*reading) bool {
	return func(d *reading) bool { return d.says(list) }
}

// rules returns the checklist. Ids are append-only: stored assessments name them. Texts must stay general, since they
// leave the node where the document may not.
func rules() []rule {
	return slices.Concat(contractRules(), invoiceRules(), otherRules(), generalRules())
}

func contractRules() []rule {
	in := []string{contract}
	return []rule{
		{"auto-renewal", 0.30, in, "Extends itself unless somebody ends it in time.",
			phrases("renew automatically|automatically renew|renews automatically|automatic renewal|auto-renew|successive periods|successive terms|evergreen|verlängert sich automatisch|verlängert sich jeweils|verlängert er sich|verlängert sich um|stillschweigend verlängert")},
		{"unlimited-liability", 0.50, in, "One side is liable without an upper limit.",
			phrases("unlimited liability|liability is unlimited|liability shall be unlimited|liable without limit|without limitation of liability|unbegrenzt haft|haftet unbeschränkt|haftet unbegrenzt|unbeschränkte haftung|haftung ist unbeschränkt|unlimited indemnity")},
		{"no-liability-clause", 0.15, in, "Nothing is said about who is liable.",
			func(d *reading) bool { return !strings.Contains(d.lower, "liab") && !strings.Contains(d.lower, "haft") }},
		{"penalty", 0.30, in, "Breach or delay costs a penalty.",
			phrases("penalty|penalties|liquidated damages|vertragsstrafe|pönale|konventionalstrafe")},
		{"short-notice", 0.25, in, "Notice to end it is shorter than thirty days.", shortNotice},
		{"unilateral-change", 0.25, in, "One side may change the terms or prices alone.",
			phrases("may amend these terms at any time|sole discretion|unilaterally|reserves the right to change|reserves the right to amend|may change the prices|einseitig änder|behält sich vor, die preise|jederzeit zu ändern|nach eigenem ermessen")},
		{"exclusivity", 0.15, in, "Binds to one partner or forbids competing.",
			phrases("exclusive supplier|exclusively from|exclusivity|non-compete|shall not compete|wettbewerbsverbot|ausschließlichkeit|exklusiv")},
		{"indemnity", 0.15, in, "One side must hold the other harmless.",
			phrases("indemnify|indemnification|hold harmless|stellt den auftraggeber von|freistellung|stellt frei")},
		{"missing-signature", 0.30, in, "No signature, or place for one, was found.", unsigned},
		{"missing-date", 0.15, in, "No date was found.", undated},
		{"no-governing-law", 0.10, in, "No governing law or place of jurisdiction was found.",
			func(d *reading) bool {
				return !anyOf(d.lower, "governing law", "governed by", "laws of", "jurisdiction", "gerichtsstand", "recht der", "deutsches recht", "deutschem recht", "schweizer recht", "österreichisches recht")
			}},
		{"subprocessors", 0.15, in, "Work or data may be passed on to others.",
			phrases("subprocessor|sub-processor|subcontract|unterauftrag|subunternehm")},
	}
}

func invoiceRules() []rule {
	in := []string{invoice}
	both := []string{invoice, email}
	return []rule{
		{"overdue", 0.40, in, "Payment is late or has been asked for before.",
			phrases("overdue|past due|final notice|payment reminder|second reminder|final reminder|dunning|mahnung|überfällig|zahlungserinnerung|verzug|mahngebühr|late payment interest|in arrears")},
		{"changed-bank-details", 0.50, both, "Asks to pay to an account other than before, a common fraud.",
			phrases("bank details have changed|new bank details|changed our bank|our new account|new account details|updated bank details|neue bankverbindung|bankverbindung hat sich geändert|geänderte bankverbindung|neues konto")},
		{"pressing", 0.20, both, "Presses for speed or secrecy.",
			phrases("immediately|urgent|without delay|within 24 hours|today at the latest|keep this confidential|do not call|umgehend|sofort|dringend|unverzüglich")},
		{"unusual-payment", 0.40, both, "Asks for an unusual way of payment.",
			phrases("gift card|bitcoin|cryptocurrency|western union|moneygram|gutscheinkarte|kryptowährung")},
		{"no-invoice-number", 0.20, in, "No invoice number was found.",
			func(d *reading) bool {
				return !anyOf(d.words, "invoice no", "invoice number", "invoice #", "invoice nr", "inv-", "rechnungsnummer", "rechnungsnr", "rechnungs-nr", "rechnung nr", "re-nr", "invoice ref", "invoice id", "credit note")
			}},
		{"no-due-date", 0.10, in, "No date or term of payment was found.",
			func(d *reading) bool {
				return !anyOf(d.words, "due", "payable", "payment terms", "net 30", "net 14", "within", "zahlbar", "fällig", "zahlungsziel", "innerhalb", "binnen", "upon receipt")
			}},
		{"no-tax", 0.10, in, "No tax was found.",
			func(d *reading) bool {
				return !anyOf(d.words, "vat", "tax", "mwst", "ust", "umsatzsteuer", "mehrwertsteuer", "gst", "reverse charge")
			}},
	}
}

func otherRules() []rule {
	return []rule{
		{"end-of-employment", 0.30, []string{hr}, "Is about ending employment or discipline.",
			phrases("dismiss|termination of employment|terminate your employment|written warning|disciplinary|redundan|severance|abmahnung|kündigung|aufhebungsvertrag|abfindung")},
		{"pay", 0.15, []string{hr}, "States pay.",
			phrases("salary|wage|bonus|remuneration|gehalt|vergütung|lohn|entgelt")},
		{"health-of-employee", 0.35, []string{hr}, "Tells of somebody's health.",
			phrases("sick leave|sickness|illness|medical certificate|disability|maternity|pregnan|krank|arbeitsunfähig|schwerbehindert|mutterschutz|schwanger")},
		{"credentials", 0.45, []string{email}, "Asks for a password or to follow a link to sign in.",
			phrases("verify your account|confirm your password|your password|log in to|click the link|click here|account will be suspended|passwort bestätigen|ihr konto wird gesperrt|klicken sie hier|zugangsdaten")},
		{"breach", 0.40, []string{report, email}, "Tells of a security or data incident.",
			phrases("data breach|security incident|unauthorised access|unauthorized access|ransomware|was compromised|leaked|datenpanne|datenschutzverletzung|sicherheitsvorfall|unbefugter zugriff")},
		{"weakness", 0.30, []string{report}, "Finds a failing or a weakness of control.",
			phrases("material weakness|significant deficiency|non-compliance|noncompliance|failed to comply|critical finding|high-risk finding|going concern|schwerwiegende mängel|wesentliche schwäche|verstoß|nichteinhaltung")},
		{"special-category", 0.45, []string{medical}, "Is about a person's health: data of a special category.",
			func(*reading) bool { return true }},
	}
}

func generalRules() []rule {
	return []rule{
		{"unredacted-personal-data", 0.45, nil, "Personal data stands in it unredacted.",
			func(d *reading) bool { return sum(d.Left) > 0 }},
		{"findings-without-redaction", 0.35, nil, "Personal data was found, but the document at hand shows no redaction.",
			func(d *reading) bool { return sum(d.Found) > 0 && sum(d.Left) == 0 && placeholders(d.Text) == 0 }},
		{"much-personal-data", 0.15, nil, "Held personal data in ten places or more.",
			func(d *reading) bool { return max(sum(d.Found), placeholders(d.Text)) >= 10 }},
		{"health-data", 0.35, []string{contract, invoice, email, report}, "Speaks of diagnoses, treatment or patients.",
			phrases("diagnos|patient|medical record|prescri|treatment of|clinical trial|blood pressure|patientin|befund|behandlung|krankenakte|arztbrief")},
		{"cross-border", 0.25, nil, "Data or services may cross a border.",
			phrases("third country|third countries|outside the european|outside the eu|outside the eea|cross-border|transfer abroad|standard contractual clauses|offshore|drittland|drittländer|drittstaat|außerhalb der eu|außerhalb des ewr|grenzüberschreitend")},
		{"dispute", 0.30, nil, "Speaks of a dispute or court.",
			phrases("litigation|lawsuit|legal action|legal proceedings|arbitration proceedings|court order|klage|rechtsstreit|gerichtlich|anwalt eingeschaltet")},
		{"very-high-amount", 0.40, nil, "Names an amount of a million or more.",
			func(d *reading) bool { return d.largest() >= 1e6 }},
		{"high-amount", 0.20, nil, "Names an amount of a hundred thousand or more.",
			func(d *reading) bool { v := d.largest(); return v >= 1e5 && v < 1e6 }},
		{"confidential", 0.10, nil, "Is marked as confidential or secret.",
			phrases("strictly confidential|confidential|trade secret|streng vertraulich|vertraulich|geschäftsgeheimnis")},
		{"uncertain-class", 0.25, nil, "The classifier is not sure what kind of document it is.",
			func(d *reading) bool { return d.Confidence < 0.6 }},
		{"short-text", 0.15, nil, "Is too short to be judged.",
			func(d *reading) bool { return strings.Count(d.words, " ") < 20 }},
	}
}

func anyOf(s string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

// sum adds up counts; another organisation may have made them up.
func sum(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += min(max(c, 0), 1<<32)
	}
	return n
}

// placeholders counts the marks that redaction leaves.
func placeholders(text string) int {
	n := 0
	for _, kind := range []string{pii.EmailAddress, pii.PhoneNumber, pii.IBAN, pii.CreditCard, pii.IPAddress, pii.DateOfBirth,
		pii.USSSN, pii.USPassport, pii.UKNINO, pii.UKNHS, pii.DETaxID, pii.FRNIR, pii.ESDNI, pii.ITFiscalCode, pii.NLBSN,
		pii.CHAHV, pii.Person} {
		n += strings.Count(text, "<"+kind+">")
	}
	return n
}
