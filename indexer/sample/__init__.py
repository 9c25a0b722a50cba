"""A sample shop: invented products, shoppers with tastes, and what they looked for, clicked and bought."""
