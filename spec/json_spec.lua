local json = require("perigee.json")

describe("json", function()
    it("keeps every double", function()
        for _, x in ipairs { 0.1, 1 / 3, 1e-310, 1.7976931348623157e308, 2 ^ 53 - 1, -123456789.125, 5e-324 } do
            assert.equal(x, json.decode(json.encode(x)))
        end
        assert.equal("-0.0", json.encode(-0.0))
        assert.equal(-math.huge, 1 / json.decode("-0.0"))
    end)

    it("writes what JSON has no number for as strings", function()
        assert.equal('["NaN","Infinity","-Infinity"]', json.encode { 0 / 0, math.huge, -math.huge })
    end)

    it("sorts keys, tells arrays from objects, escapes texts", function()
        assert.equal('{"a":[1,2],"b":{},"c":[]}', json.encode { c = json.array {}, b = {}, a = { 1, 2 } })
        assert.equal('"\\"\\\\\\n\\u0001\195\169"', json.encode('"\\\n\1\195\169'))
        assert.equal("9007199254740993", json.encode(9007199254740993LL))
    end)

    it("reads what it writes", function()
        local value = { text = "a\tb", list = { 1, 2.5, true, "x" }, deep = { { { k = false } } } }
        assert.same(json.encode(value), json.encode(json.decode(json.encode(value))))
        assert.same(json.encode(value), json.encode(json.decode(json.encode(value, "  "))))
        assert.equal(json.null, json.decode("[null]")[1])
        assert.equal("\240\157\132\158\195\169", json.decode('"\\ud834\\udd1e\\u00e9"'))
    end)

    it("names the place of an error", function()
        for _, bad in ipairs {
            "", "{", "[1,", "[1 2]", '{"a" 1}', "tru", "01", "1.", "--1", '"a', '"\\x"', '"\\ud800"', "[1] 2",
            '{"a":1,"a":2}',
            "[1,]", "\"\n\"", "nan", ("["):rep(300),
        } do
            local ok, message = pcall(json.decode, bad)
            assert.is_false(ok, bad)
            assert.matches("^json: line %d+, column %d+: ", message)
        end
        assert.matches("line 3, column 4", select(2, pcall(json.decode, "[\n1,\n2, x]")))
    end)

    it("refuses what it cannot write", function()
        assert.has_error(function() json.encode { f = print } end, "json: cannot write a function (at value.f)")
        assert.has_error(function() json.encode { [1.5] = 1 } end)
        local cycle = {}
        cycle.again = cycle
        assert.is_false((pcall(json.encode, cycle)))
    end)
end)
