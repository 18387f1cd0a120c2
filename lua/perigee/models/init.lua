--- models: ready-made ones.

return {
    gpt = require("perigee.models.gpt"),
}
