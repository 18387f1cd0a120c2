--- nn.functional: the ops that the op table names nn.functional.*, made when first used, and what is composed of them
-- here.

local pg = require("perigee")

return pg.namespace("nn.functional")
