package writ.pack.org

# METADATA
# title: Tables of customers stay out of the sandbox.
# custom:
#   id: ACME-001
#   code: customer_data
#   remedy: Ask the data team for a target that is cleared for customer data.
deny contains {"rule": rego.metadata.rule()} if {
	input.phase == "execution"
	input.resource.properties.labels.env == "sandbox"
	some file in input.context.task.files
	endswith(lower(file.path), ".csv")
}
