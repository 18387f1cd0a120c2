local pg = require("perigee")
local system = require("perigee.system")

local nn, train = pg.nn, pg.train

local function fails(pattern, f, ...)
    local ok, why = pcall(f, ...)
    assert.is_false(ok, "no error")
    assert.matches(pattern, why)
end

describe("checkpoints", function()
    local path = os.tmpname()
    after_each(function() os.remove(path) end)

    it("keep nested tables bit for bit", function()
        local state = {
            number = 0.1 + 0.2, huge = math.huge, negative = -math.huge, int = 9007199254740993LL, text = "a\n\"b\"",
            bytes = "\0\255\128", flag = false, list = { 1, { 2, "x" }, true }, empty = {},
            [0] = "zero", [5] = { deep = pg.int64 { 1, 2 } }, ["$odd"] = "$x",
            weights = { a = pg.tensor { { 0.1, -0.0 }, { math.huge, 3 } }, b = pg.tensor(true) },
        }
        train.save_checkpoint(path, state)
        local back = train.load_checkpoint(path)
        for _, key in ipairs {
            "number", "huge", "negative", "int", "text", "bytes", "flag", "list", "empty", 0, "$odd",
        } do
            assert.same(state[key], back[key])
        end
        assert.same({ 1, 2 }, back[5].deep:totable())
        assert.same(state.weights.a:totable(), back.weights.a:totable())
        assert.equal(-math.huge, 1 / back.weights.a[0][1]:item())
        assert.equal(pg.bool, back.weights.b.dtype)
        train.save_checkpoint(path, { x = 0 / 0 })
        local x = train.load_checkpoint(path).x
        assert.is_true(x ~= x)
    end)

    it("are pg.save and pg.load, which take a tensor alone too", function()
        pg.save(pg.int64 { 3, 4 }, path)
        assert.same({ 3, 4 }, pg.load(path):totable())
        pg.save({ 1, { x = pg.ones(2) } }, path)
        assert.same({ 1, 1 }, pg.load(path)[2].x:totable())
        pg.save("text", path)
        assert.equal("text", pg.load(path))
        fails("expected a path", pg.load)
    end)

    it("keep a model's keys for other readers, and its order", function()
        local m = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        train.save_checkpoint(path, { model = m:state_dict() })
        local tensors = pg.safetensors.load(path)
        assert.is_not_nil(tensors["model.0.weight"])
        assert.same(m:state_dict():keys(), train.load_checkpoint(path).model:keys())
    end)

    it("never lose the one before", function()
        train.save_checkpoint(path, { x = 1 })
        local before = system.read_file(path)
        fails("cannot write a function %(at f%)", train.save_checkpoint, path, { f = print })
        local cycle = {}
        cycle.cycle = cycle
        fails("nested deeper", train.save_checkpoint, path, cycle)
        assert.equal(before, system.read_file(path))
        fails("", train.save_checkpoint, "/no/such/folder/x", { x = 1 })
        fails("expected a path", train.save_checkpoint, { x = 1 }, path)
        fails("cannot write a nil", train.save_checkpoint, path)
    end)

    it("say what a file is not", function()
        pg.safetensors.save(path, { x = pg.ones(1) })
        fails("is no checkpoint of Perigee", train.load_checkpoint, path)
        pg.safetensors.save(path, { x = pg.ones(1) }, {
            ["perigee.checkpoint"] = '{"a":{"$tensor":"y"}}', ["perigee.checkpoint.version"] = "1",
        })
        fails("the tensor \"y\" is missing", train.load_checkpoint, path)
        pg.safetensors.save(path, {}, { ["perigee.checkpoint"] = "{", ["perigee.checkpoint.version"] = "1" })
        fails("json: line 1", train.load_checkpoint, path)
        pg.safetensors.save(path, {}, { ["perigee.checkpoint"] = "{}", ["perigee.checkpoint.version"] = "2" })
        fails("has version 2, expected 1", train.load_checkpoint, path)
        fails("", train.load_checkpoint, "/no/such/file")
    end)
end)
