"""The units shoppers measure in: every spelling of one, and its one name."""

_SPELLINGS = {
    "inch": "in inches",
    "foot": "ft feet",
    "yard": "yd yards",
    "millimeter": "mm millimeters millimetre millimetres",
    "centimeter": "cm centimeters centimetre centimetres",
    "meter": "m meters metre metres",
    "square": "sq",
    "cubic": "cu",
    "ounce": "oz ounces",
    "pound": "lb lbs pounds",
    "gram": "g grams gramme grammes",
    "kilogram": "kg kgs kilograms",
    "pint": "pt pints",
    "quart": "qt quarts",
    "gallon": "gal gallons",
    "milliliter": "ml milliliters millilitre millilitres",
    "liter": "l liters litre litres",
    "watt": "w watts",
    "volt": "v volts",
    "amp": "a amps ampere amperes",
    "horsepower": "hp",
    "btu": "btus",
    "gauge": "ga gage",
    "degree": "deg degrees",
    "piece": "pc pcs pieces",
    "pack": "pk packs",
}
# Spelling -> name.
UNITS = {spelling: name for name, others in _SPELLINGS.items() for spelling in (name, *others.split())}
NAMES = frozenset(_SPELLINGS)
# Units only behind a number: "18 in", not "white in color"; "5 hp", not the maker of printers.
AMBIGUOUS = frozenset(["in", "m", "cu", "g", "pt", "l", "w", "v", "a", "hp", "ga", "pc", "pk"])
# They stand between a number and its unit: "4.5 cu. ft.".
POWERS = frozenset({"square", "cubic"})
