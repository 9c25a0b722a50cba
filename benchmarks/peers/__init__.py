"""What Vitrine is compared with: small classes that are fitted on a log and score a whole catalogue."""
