// How a value stands in the name of a room: `order-${inName(orderId)}`
function inName(value) {
  return String(value).replace(
    /[^A-Za-z0-9\u0080-\u{10ffff}]/gu,
    (char) => "%" + char.codePointAt(0).toString(16).toUpperCase().padStart(2, "0"),
  )
}
