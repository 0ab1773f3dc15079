package writ.pack.org

# What policy decides on, it sees all of: nobody gets past a rule by sending more than it is shown.

# METADATA
# title: What policy cannot be shown whole is refused
# custom:
#   id: ORG-004
#   code: too_large
#   remedy: Send fewer files or shorter paths, or less in one call; policy has to see all of what it decides.
deny contains {"rule": rego.metadata.rule()} if not whole

whole if input.context.truncated == []
