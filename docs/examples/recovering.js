// Follow one room, and come back to it. `show` gets each message once; `reload` is called when some are missing for good.
function follow(url, room, show, reload) {
  let position = null; // { epoch, offset }: everything up to here has been shown
  let attempt = 0;

  function connect() {
    const socket = new WebSocket(url, ["jararaca.v1", "jararaca.recover"]);
    socket.onopen = () => {
      const rooms = position ? { [room]: position } : {};
      socket.send(JSON.stringify({ MESSAGE_ID: "jararaca.recover", message: { rooms } }));
      position ??= { epoch: "", offset: 0 }; // before the first message, until the server says more
    };
    socket.onmessage = (event) => {
      attempt = 0;
      const { MESSAGE_ID, message, epoch, offset } = JSON.parse(event.data);
      if (MESSAGE_ID === "jararaca.recovered" && !message.recovered) {
        position = { epoch: message.epoch, offset: message.offset };
        reload();
      } else if (MESSAGE_ID === "jararaca.position") {
        if (message.room === room) position = { epoch: message.epoch, offset: message.offset };
      } else if (!MESSAGE_ID.startsWith("jararaca.")) {
        show(message);
        if (offset !== undefined) position = { epoch, offset };
      }
    };
    socket.onclose = ({ code }) => {
      if (code >= 4500) return; // do not come back
      setTimeout(connect, Math.random() * Math.min(10000, 250 * 2 ** attempt++));
    };
  }
  connect();
}
