"""The acceptance of vyos-aws-vipa in an AWS account: scripts/accept-on-aws."""
