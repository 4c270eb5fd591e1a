"""What studies share: their options and how they are conducted, their arrivals, and what they show."""
