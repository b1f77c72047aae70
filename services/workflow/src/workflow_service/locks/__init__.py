"""The purposes of the service's advisory locks."""
