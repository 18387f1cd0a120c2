--- Every layer of every model under fixtures/, forward and backward, against what PyTorch computed; and that the
--- comparison itself can fail.

local fixture = require "fixtures.fixture"
local pg = require "perigee"

local MODELS = {"gpt2"}

for _, model in ipairs(MODELS) do
    describe("fixtures of " .. model, function()
        local folder = "fixtures/" .. model
        local layers = require("fixtures." .. model .. ".layers")
        local command = ("python3 %s/generate_all.py"):format(folder)
        local names = {}
        for name in pairs(layers) do
            names[#names + 1] = name
        end
        table.sort(names)

        it("have a layer here for each file, and a file for each layer", function()
            assert.is_true(#names > 0)
            assert.same(names, fixture.list(folder .. "/data"), "write the files with: " .. command)
        end)

        for _, name in ipairs(names) do
            it(name, function()
                local document = fixture.read(("%s/data/%s.json"):format(folder, name), command)
                local rows = fixture.run_layer(document, layers[name])
                assert.is_true(#rows >= 2, "a fixture holds at least an output and a gradient")
                for _, row in ipairs(rows) do
                    assert.is_nil(row.problem, ("%s %s: %s"):format(row.kind, row.name, tostring(row.problem)))
                end
            end)
        end

        it("notice a wrong parameter in every layer that has one", function()
            local tried = 0
            for _, name in ipairs(names) do
                local document = fixture.read(("%s/data/%s.json"):format(folder, name), command)
                local _, array = next(document.parameters)
                if array then
                    array.data[1] = array.data[1] + 0.25
                    local noticed = false
                    for _, row in ipairs(fixture.run_layer(document, layers[name])) do
                        noticed = noticed or row.problem ~= nil
                    end
                    assert.is_true(noticed, name)
                    tried = tried + 1
                end
            end
            assert.is_true(tried > 0)
        end)
    end)
end

describe("fixture.read", function()
    it("says which command writes a file that is missing", function()
        assert.has_error(function()
            fixture.read("fixtures/gpt2/data/nothing.json", "python3 fixtures/gpt2/generate_all.py")
        end, "fixtures/gpt2/data/nothing.json is missing; write it with: python3 fixtures/gpt2/generate_all.py")
    end)

    local function rejects(text, pattern)
        local path = os.tmpname()
        local file = assert(io.open(path, "w"))
        file:write(text)
        file:close()
        local ok, message = pcall(fixture.read, path, "COMMAND")
        os.remove(path)
        assert.is_false(ok)
        assert.matches(pattern, message)
        assert.matches("write it with: COMMAND", message, 1, true)
    end

    it("refuses half a file and another format", function()
        rejects('{"format_version": 1, "inp', "is not JSON")
        rejects('{"format_version": 99}', "has format version 99, 1 was expected")
    end)
end)

describe("fixture.difference", function()
    local function array(dtype, data, shape)
        return {dtype = dtype, shape = shape or {#data}, data = data}
    end
    local function difference(data, dtype, want, options)
        return (fixture.difference(pg.tensor(data, {dtype = pg[dtype]}), want, options))
    end

    it("accepts the same values, NaN and infinities among them", function()
        local want = array("float32", {1.5, "nan", "inf", "-inf", 0})
        assert.is_nil(difference({1.5, 0 / 0, math.huge, -math.huge, 0}, "float32", want))
        assert.is_nil(difference({1, 2}, "int64", array("int64", {1, "2"})))
        assert.is_nil(difference({true, false}, "bool", array("bool", {true, false})))
    end)

    it("notices values, zeros, NaN, infinities, integers, bools", function()
        local want = array("float32", {1.5, -2})
        assert.matches("first at 1: %-2 was expected, got %-2.00", difference({1.5, -2.001}, "float32", want))
        assert.matches("2 of 2 elements differ", difference({0, 0}, "float32", want))
        assert.matches("2 of 2 elements differ", difference({0, 0}, "float32", want, {n = 10000, loose = 10}))
        assert.matches("2 of 2 elements differ", difference({0, 0}, "float32", array("float32", {1e-7, -2e-7})))
        assert.matches("first at 0", difference({0 / 0, -2}, "float32", want))
        assert.matches("first at 0", difference({1, 2}, "float32", array("float32", {"nan", 2})))
        assert.matches("first at 0", difference({1e38, 2}, "float32", array("float32", {"inf", 2})))
        assert.matches("first at 1", difference({1, 3}, "int64", array("int64", {1, 2})))
        assert.matches("first at 1", difference({true, true}, "bool", array("bool", {true, false})))
    end)

    it("notices the sign of zero where it is asked to", function()
        local minus_zero = -1 / math.huge      -- LuaJIT on aarch64 reads the literal -0.0 as 0
        local want = array("float32", {minus_zero})
        assert.is_nil(difference({0}, "float32", want))
        assert.matches("first at 0", difference({0}, "float32", want, {zeros = true}))
        assert.is_nil(difference({minus_zero}, "float32", want, {zeros = true}))
    end)

    it("notices dtype and shape", function()
        assert.equal("dtype float64 was expected, got float32", difference({1}, "float32", array("float64", {1})))
        local row = array("float32", {1, 2}, {1, 2})
        assert.equal("shape [1, 2] was expected, got [2]", difference({1, 2}, "float32", row))
        assert.equal("a tensor was expected, got number", (fixture.difference(3, array("float32", {3}))))
    end)

    it("gives the largest and the mean difference", function()
        local _, largest, mean = fixture.difference(pg.tensor {1, 2.5}, array("float32", {1, 2}))
        assert.equal(0.5, largest)
        assert.equal(0.25, mean)
    end)
end)
