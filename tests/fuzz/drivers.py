"""All drivers by name, one for each reader."""

from tests.fuzz import drivers_data, drivers_hotwords, drivers_models, drivers_packs, drivers_results, drivers_text

GROUPS = (drivers_data, drivers_text, drivers_models, drivers_packs, drivers_hotwords, drivers_results)
DRIVERS = {driver.name: driver for group in GROUPS for driver in group.DRIVERS}
