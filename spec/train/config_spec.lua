local config = require("perigee.train.config")

local function settings()
    return config {
        { "n_layer", 4, "blocks" },
        { "learning_rate", 1e-3 },
        { "dropout", 0, "probability", "float" },
        { "bias", false },
        { "out_dir", "out" },
        { "init_from", "scratch", "start", { "scratch", "resume" } },
    }
end

describe("train.config", function()
    it("gives the defaults", function()
        local s, given = settings():parse {}
        assert.same({
            n_layer = 4, learning_rate = 1e-3, dropout = 0, bias = false, out_dir = "out", init_from = "scratch",
        }, s)
        assert.same({}, given)
    end)

    it("reads --key=value, --key value and flags", function()
        local s, given = settings():parse {
            "--n_layer=6", "--learning_rate", "3e-4", "--dropout=0.2", "--bias", "--out_dir=a=b", "--init-from=resume",
        }
        assert.same({
            n_layer = 6, learning_rate = 3e-4, dropout = 0.2, bias = true, out_dir = "a=b", init_from = "resume",
        }, s)
        assert.is_true(given.n_layer and given.bias)
        assert.is_false(settings():parse({ "--bias=False" }).bias)
        assert.equal(-1, settings():parse({ "--n_layer", "-1" }).n_layer)
    end)

    it("lists what exists where a key is unknown", function()
        local ok, message = pcall(settings().parse, settings(), { "--n_layers=2" })
        assert.is_false(ok)
        assert.matches("unknown setting %-%-n_layers %(did you mean %-%-n_layer%?%)", message)
        for _, name in ipairs { "n_layer", "learning_rate", "dropout", "bias", "out_dir", "init_from" } do
            assert.matches("%-%-" .. name .. "=", message)
        end
    end)

    it("says what was expected where a value is of the wrong kind", function()
        for argument, expected in pairs {
            ["--n_layer=2.5"] = "expected an integer, got \"2.5\"", ["--n_layer=x"] = "expected an integer",
            ["--n_layer=0x10"] = "expected an integer", ["--learning_rate=fast"] = "expected a number",
            ["--bias=maybe"] = "expected true or false", ["--init_from=gpt2"] = "expected one of scratch, resume",
            ["--learning_rate=nan"] = "expected a number", ["--n_layer="] = "expected an integer",
        } do
            local ok, message = pcall(settings().parse, settings(), { argument })
            assert.is_false(ok, argument)
            assert.matches(expected, message, 1, true)
        end
        assert.matches("needs a value", select(2, pcall(settings().parse, settings(), { "--n_layer" })))
        assert.matches("got \"stray\"", select(2, pcall(settings().parse, settings(), { "stray" })))
    end)

    it("refuses a bad declaration", function()
        assert.is_false((pcall(config, { { "a" } })))
        assert.is_false((pcall(config, { { "a", 1 }, { "a", 2 } })))
    end)
end)
