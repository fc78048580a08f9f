"""Tool calls as models write them: formats described once (`formats`), from which both the grammar
that constrains (`rules`) and the parser that reads (`parser`) follow."""
